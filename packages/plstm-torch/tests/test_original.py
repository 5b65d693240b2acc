"""Original configs and weights give the original's outputs and gradients."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from plstm_config.original import MigrationWarning, convert_weights, migrate
from plstm_testing import golden
from plstm_testing.tolerances import assert_within
from plstm_torch import build, load_original

pytestmark = pytest.mark.filterwarnings("ignore::plstm_config.original.MigrationWarning")

# ops have tests of their own, and so have the layers on graphs, which are called with more than arrays
MODULE_KINDS = (
    "source",
    "transition",
    "mark",
    "direct",
    "query",
    "key",
    "value",
    "norm",
    "convolution",
    "layer_1d",
    "layer_2d_fused",
    "block",
    "model",
)
NAMES = [
    name
    for name in golden.names()
    if (case := golden.load(name)).config is not None and case.is_original and case.kind.startswith(MODULE_KINDS)
]


def as_input(array: np.ndarray) -> Tensor:
    tensor = torch.from_numpy(array.copy())
    return tensor.requires_grad_() if tensor.is_floating_point() else tensor


def gradient_of(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_gradients(name: str) -> None:
    case = golden.load(name)
    module = load_original(case.config, case.parameters)
    arguments = {key: as_input(value) for key, value in case.inputs.items() if key != "cotangent"}
    output = module(*arguments.values())
    assert output.dtype == torch.float64
    assert_within(output.detach(), case.outputs["output"], case.limit, "output")
    (output * torch.from_numpy(case.inputs["cotangent"])).sum().backward()
    for key, reference in case.gradients.items():
        if not key.startswith("param/"):
            assert_within(gradient_of(arguments[key]), reference, case.limit, key)
    references = {
        key.removeprefix("param/"): value for key, value in case.gradients.items() if key.startswith("param/")
    }
    if not references:
        return
    converted = convert_weights(module.config, references)
    parameters = dict(module.named_parameters())
    assert converted.keys() == parameters.keys()
    for key, reference in converted.items():
        assert_within(gradient_of(parameters[key]), reference, case.limit, f"gradient of {key}")


def list_layer(mode: str, **gate: Any) -> dict[str, Any]:
    """An original config of the layer with a list of orientations."""
    parts = {
        "source": {"config_class": "SourceLayerConfig", **gate},
        "transition": {"config_class": "LongRangeTransitionLayerConfig", **gate},
        "mark": {"config_class": "MarkLayerConfig", **gate},
    }
    dtypes = {"dtype": "float64", "param_dtype": "float64"}
    return {
        "config_class": "pLSTM2DLayerConfig",
        "input_dim": 6,
        "num_heads": 2,
        "mode": mode,
        "orientation_combinations": [0, 3, 1],
        **dtypes,
        **{name: {**part, **dtypes} for name, part in parts.items()},
    }


@pytest.mark.parametrize("mode", ["P", "D"])
def test_gates_of_listed_orientations_become_head_major(mode: str, randomize: Callable[[nn.Module], nn.Module]) -> None:
    heads, orientations = 2, 3
    config = list_layer(mode, weight=True, sub_heads=1)
    ours = randomize(build(migrate(config)))
    original = {}
    for name, value in ours.state_dict().items():
        if name.startswith("orientation"):
            original[name] = value.transpose(0, 1)
        elif name.startswith(("source", "transition", "mark")):
            rows = [value[h * orientations + o] for o in range(orientations) for h in range(heads)]
            original[name] = torch.stack(rows)
        else:
            original[name] = value
    loaded = load_original(config, original)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name


def test_sub_heads_of_listed_orientations_are_refused() -> None:
    config = list_layer("P", weight=True, sub_heads=2)
    weights = build(migrate(config)).state_dict()
    with pytest.raises(ValueError, match=r"source: expected sub_heads=1, since the original orders .* got sub_heads=2"):
        load_original(config, weights)


def test_sub_heads_do_not_matter_without_weights() -> None:
    config = list_layer("P", weight=False, sub_heads=2)
    load_original(config, build(migrate(config)).state_dict())


def test_torch_tensors_and_wrapper_prefixes() -> None:
    case = golden.load("norm_rms")
    weights = {f"module._orig_mod.{name}": torch.from_numpy(value) for name, value in case.parameters.items()}
    module = load_original(case.config, weights)
    assert not module.training
    assert_within(module.scale.detach(), case.parameters["scale"], case.limit)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"query.weight": None},
            r"state_dict: expected the weights of pLSTM1DLayer, got others: missing 'query\.weight'",
        ),
        ({"other.weight": np.zeros(2)}, r"state_dict: .*unexpected 'other\.weight'"),
        ({"query.bias": np.zeros((5, 1))}, r"state_dict: .*query\.bias: expected shape .* got \(5, 1\)"),
    ],
)
def test_weights_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    case = golden.load("layer_1d")
    weights = {name: value for name, value in {**case.parameters, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        load_original(case.config, weights)


def test_values_that_are_no_arrays() -> None:
    case = golden.load("norm_rms")
    with pytest.raises(TypeError, match=r"state_dict\['scale'\]: expected an array of numbers, got str"):
        load_original(case.config, {**case.parameters, "scale": "weights"})


def test_a_tied_head_may_stand_in_the_weights_twice() -> None:
    case = golden.load("model_lm")
    config = {**case.config, "tie_weights": True}
    weights = {**case.parameters, "lm_head.weight": case.parameters["token_embedding.weight"]}
    assert load_original(config, weights).lm_head is None
    with pytest.raises(ValueError, match=r"lm_head\.weight: expected the values of token_embedding\.weight"):
        load_original(config, case.parameters)


def test_scales_that_nothing_reads_are_dropped() -> None:
    case = golden.load("block_transformer")
    module = load_original({**case.config, "skip": False}, case.parameters)
    assert [name for name, _ in module.named_parameters() if name.startswith("scale")] == []


def test_weights_of_gates_without_an_input_are_dropped() -> None:
    case = golden.load("source_bias_only")
    with pytest.warns(MigrationWarning, match="dropped weights without effect on the output: 'weight'"):
        module = load_original(case.config, {**case.parameters, "weight": np.ones((2, 3))})
    x = torch.from_numpy(case.inputs["x"])
    assert_within(module(x).detach(), case.outputs["output"], case.limit, "output")


def test_low_precision_weights_pass_unchanged() -> None:
    case = golden.load("norm_rms")
    scale = torch.from_numpy(case.parameters["scale"]).bfloat16()
    weights = {name: torch.from_numpy(value).bfloat16() for name, value in case.parameters.items()}
    assert torch.equal(load_original(case.config, weights).scale, scale.double())
