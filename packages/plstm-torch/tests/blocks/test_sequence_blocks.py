"""Blocks around 1D layers: step, pieces and packed sequences equal the full pass."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from plstm_config import BlockStackConfig, PostUpProjectionBlockConfig, PreUpProjectionBlockConfig, pLSTM1DLayerConfig
from plstm_testing.tolerances import assert_close
from plstm_torch import build

DTYPES = {"dtype": "float64", "param_dtype": "float64"}
LAYER = pLSTM1DLayerConfig(input_dim=8, num_heads=2, **DTYPES)
BLOCKS = {
    "pre_up": PreUpProjectionBlockConfig(input_dim=8, projection_round=8, **DTYPES),
    "pre_up_no_gate_no_skip": PreUpProjectionBlockConfig(
        input_dim=8, projection_round=8, gated=False, skip=False, bias=False, **DTYPES
    ),
    "post_up": PostUpProjectionBlockConfig(
        input_dim=8,
        projection_round=8,
        interaction_module=LAYER,
        **DTYPES,
    ),
    "post_up_gated_scaled": PostUpProjectionBlockConfig(
        input_dim=8,
        projection_round=8,
        gated=True,
        use_scale=True,
        gating_function="gelu_tanh",
        interaction_module=LAYER,
        **DTYPES,
    ),
}
CONFIGS = {
    **BLOCKS,
    **{
        f"stack_{name}": BlockStackConfig(input_dim=8, num_blocks=2, block=block, **DTYPES)
        for name, block in BLOCKS.items()
    },
}


@pytest.fixture(params=CONFIGS)
def block(request: pytest.FixtureRequest, randomize: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return randomize(build(CONFIGS[request.param]))


@torch.no_grad()
def test_steps_equal_the_full_pass(block: nn.Module) -> None:
    x = torch.randn(2, 7, 8, dtype=torch.float64)
    full, last = block(x, return_cache=True)
    cache = block.init_cache(2)
    steps = []
    for t in range(7):
        y, cache = block.step(x[:, t], cache)
        steps.append(y)
    assert_close(torch.stack(steps, 1), full, label="output")
    again, _ = block.step(x[:, 0], cache)
    continued, _ = block.step(x[:, 0], last)
    assert_close(again, continued, kind="state", label="cache")


@torch.no_grad()
def test_pieces_equal_the_whole(block: nn.Module) -> None:
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    head, cache = block(x[:, :4], return_cache=True)
    tail = block(x[:, 4:], cache=cache)
    assert_close(torch.cat([head, tail], 1), block(x))


@torch.no_grad()
def test_packed_equals_separate(block: nn.Module) -> None:
    lengths = [3, 1, 5]
    x = torch.randn(2, sum(lengths), 8, dtype=torch.float64)
    borders = torch.tensor([0, 3, 4, 9])
    packed = block(x, cu_seqlens=borders)
    separate = torch.cat([block(piece) for piece in x.split(lengths, 1)], 1)
    assert_close(packed, separate)


def test_a_cache_of_another_module_is_refused(block: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"cache: expected an entry '.*' as init_cache makes it, got the entries"):
        block.step(torch.randn(2, 8, dtype=torch.float64), {"other": {}})


def test_every_parameter_gets_a_gradient(block: nn.Module) -> None:
    block(torch.randn(2, 5, 8, dtype=torch.float64)).square().sum().backward()
    assert [name for name, parameter in block.named_parameters() if parameter.grad is None] == []


def test_reset_draws_the_same_weights_as_construction() -> None:
    torch.manual_seed(3)
    block = build(BLOCKS["pre_up"])
    first = {name: value.clone() for name, value in block.state_dict().items()}
    for parameter in block.parameters():
        nn.init.constant_(parameter, 7.0)
    torch.manual_seed(3)
    block.reset_parameters()
    for name, value in block.state_dict().items():
        assert torch.equal(value, first[name]), name
