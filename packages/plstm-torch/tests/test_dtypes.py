"""What `half`, `bfloat16`, `double` and `to` mean, and what the config's types mean."""

import copy
from typing import Any

import pytest
import torch

import plstm_config
from plstm_config.topology import DagTopology
from plstm_testing.tolerances import assert_close
from plstm_torch import build, from_pretrained, save_pretrained

GRAPH = DagTopology.from_edges(4, [(0, 1), (1, 2), (0, 2), (2, 3)])
DRAWS = torch.Generator().manual_seed(0)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=DRAWS)


MODULES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "sequence": (plstm_config.pLSTM1DLayerConfig(input_dim=16, num_heads=2), (drawn(2, 5, 16),)),
    "grid": (plstm_config.pLSTM2DLayerFusedConfig(input_dim=16, num_heads=2), (drawn(2, 4, 3, 16),)),
    "graph": (
        plstm_config.pLSTMGraphLayerConfig(input_dim=16, num_heads=2, max_edges=3),
        (drawn(4, 16), GRAPH),
    ),
    "block": (plstm_config.TransformerBlockConfig(input_dim=16, num_heads=2), (drawn(2, 5, 16),)),
    "vision": (
        plstm_config.pLSTMVisionModelConfig(dim=16, num_heads=2, num_blocks=1, patch_size=8, resolution=(16, 16)),
        (drawn(2, 16, 16, 3),),
    ),
    "language": (
        plstm_config.pLSTMLMModelConfig(vocab_size=7, embedding_dim=16),
        (torch.arange(10).reshape(2, 5) % 7,),
    ),
    "graph model": (
        plstm_config.pLSTMGraphModelConfig(input_dim=16, dim=16, output_dim=2, num_blocks=1),
        (drawn(4, 16), GRAPH),
    ),
}


MODELS = ("vision", "language", "graph model")  # answer in their own dtype, all others in that of their input


def test_float32_is_the_default() -> None:
    config: Any = plstm_config.preset("plstm_vis_tiny")
    assert (config.dtype, config.param_dtype) == ("float32", "float32")


def in_dtype(inputs: tuple[Any, ...], dtype: torch.dtype) -> list[Any]:
    """Features in a dtype; tokens and graphs as they are."""
    floats = [torch.is_tensor(given) and given.is_floating_point() for given in inputs]
    return [given.to(dtype) if is_float else given for given, is_float in zip(inputs, floats, strict=True)]


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_a_module_computes_in_the_dtype_that_it_was_changed_to(name: str, dtype: str, randomize: Any) -> None:
    config, inputs = MODULES[name]
    changed = randomize(build(config)).eval().to(getattr(torch, dtype))
    # of the rounded parameters: what is asked is how they are computed with, not what their rounding does to the output
    exact = copy.deepcopy(changed).to(torch.float64)
    own = getattr(torch, dtype)
    with torch.no_grad():
        output, other = changed(*in_dtype(inputs, own)), changed(*inputs)
        expected = exact(*in_dtype(inputs, torch.float64))
    assert {parameter.dtype for parameter in changed.parameters()} == {output.dtype} == {own}
    assert other.dtype == (own if name in MODELS else torch.float32)
    assert_close(output.double().numpy(), expected.numpy(), dtype, "module", name)
    lower = "float32" if other.dtype != own and dtype == "float64" else dtype
    assert_close(other.double().numpy(), expected.numpy(), lower, "module", name)


def test_double_is_more_exact_than_float(randomize: Any) -> None:
    module = randomize(build(MODULES["sequence"][0])).double()
    x = MODULES["sequence"][1][0].double()
    assert not torch.equal(module(x).float().double(), module(x))
    assert torch.equal(module.float()(x).double(), module(x.float()).double())


def test_moving_changes_no_dtype() -> None:
    config = plstm_config.change(MODULES["sequence"][0], {"dtype": "bfloat16"})
    module = build(config).to("cpu").to("meta").to_empty(device="cpu")
    assert {part.dtype for part in module.modules() if hasattr(part, "dtype")} == {torch.bfloat16}


BETWEEN_OTHERS = {name: module for name, module in MODULES.items() if name not in MODELS} | {
    f"{block.__name__} without skip": (block(input_dim=16, skip=False), (drawn(2, 5, 16),))
    for block in (
        plstm_config.PreUpProjectionBlockConfig,
        plstm_config.PostUpProjectionBlockConfig,
        plstm_config.TransformerBlockConfig,
    )
}


@pytest.mark.parametrize("name", BETWEEN_OTHERS)
@torch.no_grad()
def test_under_autocast_a_layer_answers_in_the_dtype_of_its_input(name: str, randomize: Any) -> None:
    config, (x, *more) = BETWEEN_OTHERS[name]
    module = randomize(build(config)).eval()
    exact = module(x, *more)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16):
            output = module(x.to(dtype), *more)
        assert output.dtype == dtype
        assert_close(output.double().numpy(), exact.double().numpy(), "bfloat16", "module", name)


OF_ALL_PARTS = MODULES | {
    "both directions": (
        plstm_config.pLSTM1DLayerConfig(input_dim=16, num_heads=2, bidirectional=True),
        (drawn(2, 5, 16),),
    ),
    "unfused grid": (plstm_config.pLSTM2DLayerConfig(input_dim=16, num_heads=2), (drawn(2, 4, 3, 16),)),
    "attention": (
        plstm_config.preset("vit_tiny", dim=16, num_heads=2, num_blocks=1, patch_size=8, resolution=(16, 16)),
        (drawn(2, 16, 16, 3),),
    ),
}


@pytest.mark.parametrize("name", OF_ALL_PARTS)
@pytest.mark.parametrize(("own", "other"), [("bfloat16", "float16"), ("float16", "bfloat16")])
def test_a_narrow_module_works_under_an_autocast_to_the_other_narrow_type(name, own, other, randomize) -> None:
    """torch joins no tensors of a third type there."""
    config, inputs = OF_ALL_PARTS[name]
    exact = randomize(build(config)).eval()
    module = copy.deepcopy(exact).to(getattr(torch, own)).train()
    with torch.autocast("cpu", getattr(torch, other)):
        output = module(*in_dtype(inputs, getattr(torch, own)))
        output.float().square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    with torch.no_grad():
        assert_close(output.double().numpy(), exact(*inputs).double().numpy(), "bfloat16", "module", name)


@torch.no_grad()
def test_a_residual_stream_stays_wide_under_autocast(randomize: Any) -> None:
    """Large numbers go through block after block, and lose none of the small ones that are added."""
    for block in (plstm_config.PreUpProjectionBlockConfig, plstm_config.PostUpProjectionBlockConfig):
        stack = randomize(build(plstm_config.BlockStackConfig(block=block(), input_dim=16, num_blocks=2))).eval()
        x = 1000.0 * drawn(2, 5, 16)
        exact = stack.double()(x.double()) - x
        with torch.autocast("cpu", torch.bfloat16):
            added = stack.float()(x) - x
        assert_close(added.double().numpy(), exact.numpy(), "bfloat16", "module", block.__name__)


def test_integers_are_answered_in_the_dtype_of_the_computation() -> None:
    assert build(MODULES["sequence"][0])(torch.ones(1, 2, 16, dtype=torch.long)).dtype == torch.float32


def test_what_is_saved_keeps_the_types_of_the_config(tmp_path: Any) -> None:
    save_pretrained(build(MODULES["sequence"][0]).half(), tmp_path)
    module = from_pretrained(tmp_path)
    assert module(torch.zeros(1, 2, 16)).dtype == torch.float32
