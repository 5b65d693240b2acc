"""Layers against what the original project computed, with its weights."""

import pytest
import torch

from plstm_config.original import convert_weights, migrate
from plstm_testing import golden
from plstm_testing.tolerances import assert_within
from plstm_torch.build import build

KINDS = (
    "source",
    "mark",
    "direct",
    "query",
    "key",
    "value",
    "norm",
    "convolution",
    "transition",
    "layer_1d",
    "layer_2d_fused",
)
NAMES = [name for kind in KINDS for name in golden.names(kind)]


def tensors(module, arrays):
    return {name: torch.from_numpy(array) for name, array in convert_weights(module.config, arrays).items()}


@pytest.mark.filterwarnings("ignore:.*(dropped|ignored|Dropped|Ignored).*")
@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_the_original(name):
    case = golden.load(name)
    module = build(migrate(case.config))
    module.load_state_dict(tensors(module, case.parameters))
    x = torch.from_numpy(case.inputs["x"]).requires_grad_()
    output = module(x)
    assert output.dtype == torch.float64
    assert_within(output.detach().numpy(), case.outputs["output"], case.limit, "output")
    if not case.gradients:
        return
    (output * torch.from_numpy(case.inputs["cotangent"])).sum().backward()
    expected = tensors(
        module, {key.removeprefix("param/"): grad for key, grad in case.gradients.items() if key.startswith("param/")}
    )
    for key, parameter in module.named_parameters():
        assert_within(parameter.grad.numpy(), expected[key].numpy(), case.limit, key)
    x_grad = torch.zeros_like(x) if x.grad is None else x.grad  # gates of a bias alone do not see x
    assert_within(x_grad.numpy(), case.gradients["x"], case.limit, "x")
