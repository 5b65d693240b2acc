"""Blocks on grids: the vision pair, attention, drop path and activation checkpointing."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from plstm_config import (
    BlockStackConfig,
    PostUpProjectionBlockConfig,
    PreUpProjectionBlockConfig,
    TransformerBlockConfig,
    pLSTM2DLayerFusedConfig,
    pLSTMVisionBlockConfig,
)
from plstm_testing.tolerances import assert_close
from plstm_torch import build
from plstm_torch.blocks.gating import gating_function

DTYPES = {"dtype": "float64", "param_dtype": "float64"}


def grid_layer(width: int, mode: str = "P") -> pLSTM2DLayerFusedConfig:
    return pLSTM2DLayerFusedConfig(input_dim=width, num_heads=2, mode=mode, **DTYPES)


def post_up(**options: object) -> PostUpProjectionBlockConfig:
    return PostUpProjectionBlockConfig(
        input_dim=8, projection_round=8, interaction_module=grid_layer(8), **DTYPES, **options
    )


def vision(**options: object) -> pLSTMVisionBlockConfig:
    return pLSTMVisionBlockConfig(input_dim=8, num_heads=2, **DTYPES, **options)


CONFIGS = {
    "post_up": post_up(),
    "pre_up": PreUpProjectionBlockConfig(
        input_dim=8, projection_round=8, interaction_module=grid_layer(16, "D"), **DTYPES
    ),
    "vision_post_up": vision(),
    "vision_pre_up": vision(block_type="pre_up", block_mode="DP"),
    "transformer": TransformerBlockConfig(input_dim=8, num_heads=2, projection_round=8, gated=True, **DTYPES),
    "stack": BlockStackConfig(input_dim=8, num_blocks=2, block=vision(), **DTYPES),
}


@pytest.fixture(params=CONFIGS)
def block(request: pytest.FixtureRequest, randomize: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return randomize(build(CONFIGS[request.param]))


def grid(*sizes: int) -> Tensor:
    return torch.randn(*sizes, 8, dtype=torch.float64)


@pytest.mark.parametrize("sizes", [(2, 3, 5), (1, 1, 1), (0, 4, 4)])
def test_any_grid_keeps_its_shape(block: nn.Module, sizes: tuple[int, ...]) -> None:
    x = grid(*sizes)
    y = block(x)
    assert y.shape == x.shape
    assert y.dtype == torch.float64


def test_every_parameter_gets_a_gradient(block: nn.Module) -> None:
    block(grid(2, 3, 4)).square().sum().backward()
    assert [name for name, parameter in block.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("option", [{"cache": {}}, {"return_cache": True}, {"cu_seqlens": torch.tensor([0, 3])}])
@pytest.mark.parametrize("name", ["post_up", "pre_up", "stack"])
def test_sequence_arguments_are_refused(name: str, option: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected a module with one time axis"):
        build(CONFIGS[name])(grid(2, 3, 4), **option)


@pytest.mark.parametrize("name", ["post_up", "pre_up", "stack"])
def test_there_is_no_step_on_grids(name: str) -> None:
    block = build(CONFIGS[name])
    with pytest.raises(ValueError, match="init_cache: expected a module with one time axis"):
        block.init_cache(2)
    with pytest.raises(ValueError, match="step: expected a module with one time axis"):
        block.step(grid(2), {})


def test_attention_follows_its_formula(randomize: Callable[[nn.Module], nn.Module]) -> None:
    block = randomize(build(TransformerBlockConfig(input_dim=8, num_heads=2, projection_round=8, **DTYPES)))
    x = grid(2, 3, 2)
    positions = x.reshape(2, 6, 8)
    query, key, value = (part.unflatten(-1, (2, 4)) for part in block.qkv(block.norm(positions)).split(8, -1))
    scores = torch.einsum("bihd,bjhd->bhij", query, key) / math.sqrt(4)
    mixed = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), value).flatten(2)
    x2 = positions + block.scale(block.outproj(mixed))
    y = x2 + block.scale2(block.downproj(nn.functional.gelu(block.upproj(block.norm2(x2)))))
    assert_close(block(x).detach(), y.detach().view(x.shape))


def test_attention_sees_permuted_positions_alike(randomize: Callable[[nn.Module], nn.Module]) -> None:
    block = randomize(build(CONFIGS["transformer"]))
    x = grid(2, 6)
    order = torch.randperm(6)
    assert_close(block(x[:, order]).detach(), block(x)[:, order].detach())


@pytest.mark.parametrize(
    "config",
    [vision(drop_path_rate=0.5), post_up(drop_path_rate=0.5), CONFIGS["transformer"]],
    ids=["vision", "post_up", "transformer"],
)
def test_drop_path_acts_in_training_only(config: object, randomize: Callable[[nn.Module], nn.Module]) -> None:
    block = randomize(build(config))
    x = grid(8, 2, 2)
    without = block.eval()(x)
    assert torch.equal(without, block(x))
    trained = block.train()(x)
    drops = getattr(config, "drop_path_rate", 0.0) > 0
    assert torch.equal(trained, without) is not drops


def test_drop_path_skips_the_pair_as_a_whole(randomize: Callable[[nn.Module], nn.Module]) -> None:
    block = randomize(build(vision(drop_path_rate=0.5)))
    x = grid(32, 2, 2)
    residual = (block.eval()(x) - x).detach()
    change = (block.train()(x) - x).detach()
    dropped = (change == 0).flatten(1).all(1)
    assert 0 < int(dropped.sum()) < 32
    assert_close(change[~dropped], 2 * residual[~dropped])


@pytest.mark.parametrize("name", ["stack", "stack_dropping"])
def test_checkpointing_changes_no_number(name: str, randomize: Callable[[nn.Module], nn.Module]) -> None:
    rate = 0.5 if name == "stack_dropping" else 0.0
    stack = randomize(build(BlockStackConfig(input_dim=8, num_blocks=2, block=vision(drop_path_rate=rate), **DTYPES)))
    x = grid(4, 3, 2).requires_grad_()
    results = []
    for enabled in (False, True):
        stack.gradient_checkpointing = enabled  # type: ignore[assignment]
        stack.zero_grad()
        x.grad = None
        torch.manual_seed(5)
        stack(x).square().sum().backward()
        results.append([x.grad, *(parameter.grad.clone() for parameter in stack.parameters())])
    for kept, recomputed in zip(*results, strict=True):
        assert_close(recomputed, kept, kind="gradient")


def test_checkpointing_keeps_fewer_activations() -> None:
    stack = build(CONFIGS["stack"])
    x = grid(2, 6, 6)
    sizes = []
    for enabled in (False, True):
        stack.gradient_checkpointing = enabled  # type: ignore[assignment]
        kept = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            stack(x)
        sizes.append(kept)
    assert sizes[1] < 0.2 * sizes[0]


def test_unknown_gating_function_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"gating_function: .*'silu', 'gelu', 'gelu_tanh'.*, got 'relu'"):
        gating_function("relu")
