import pytest
import torch

from plstm_config import DirectLayerConfig, LongRangeTransitionLayerConfig, MarkLayerConfig, SourceLayerConfig
from plstm_testing import reference
from plstm_torch.build import build
from plstm_torch.layers.joint_gates import joint_gates

DTYPES = {"dtype": "float64", "param_dtype": "float64"}
CONFIGS = {
    "source": (SourceLayerConfig, {"JT": 3, "JK": 1, "JV": 2}, (3, 1, 2)),
    "mark": (MarkLayerConfig, {"JO": 2, "JQ": 3, "JT": 1}, (2, 3, 1)),
    "direct": (DirectLayerConfig, {"JO": 2, "JQ": 1, "JK": 3, "JV": 2}, (2, 1, 3, 2)),
}


def by_hand(x, weight, bias):
    """bias + sum_d weight[p, i, ..., d] x[i, d], head by head."""
    groups, sub_heads, width = weight.shape[0], weight.shape[1], weight.shape[-1]
    heads = []
    for group in range(groups):
        for index in range(sub_heads):
            part = x[..., index * width : (index + 1) * width]
            heads.append(torch.tensordot(part, weight[group, index], dims=([-1], [-1])))
    return torch.stack(heads, dim=x.ndim - 1) + bias


@pytest.mark.parametrize("activation", ["identity", "tanh", "logsigmoid"])
@pytest.mark.parametrize("sub_heads", [1, 2, 4])
@pytest.mark.parametrize("kind", CONFIGS)
def test_agrees_with_the_formula(kind, sub_heads, activation, randomize, assert_close):
    config_class, sizes, axes = CONFIGS[kind]
    config = config_class(
        num_heads=4, sub_heads=sub_heads, input_dim=8, weight=True, activation=activation, activation_scale=1.5,
        **sizes, **DTYPES,
    )  # fmt: skip
    gate = randomize(build(config))
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    z = by_hand(x, gate.weight, gate.bias)
    expected = {
        "identity": z,
        "tanh": 1.5 * torch.tanh(z / 1.5),
        "logsigmoid": torch.sigmoid(z) ** 1.5,
    }[activation]
    assert gate(x).shape == (2, 5, 4, *axes)
    assert_close(gate(x), expected)
    numpy_gate = reference.gate(
        x.numpy(), gate.bias.detach().numpy(), gate.weight.detach().numpy(), activation=activation, activation_scale=1.5
    )
    assert_close(gate(x), numpy_gate, label="reference")


@pytest.mark.parametrize("kind", CONFIGS)
def test_bias_alone_is_the_same_at_every_node(kind, randomize, assert_close):
    config_class, sizes, axes = CONFIGS[kind]
    gate = randomize(build(config_class(num_heads=4, input_dim=8, weight=False, **sizes, **DTYPES)))
    output = gate(torch.randn(3, 2, 5, 8))
    assert output.shape == (3, 2, 5, 4, *axes)
    assert [name for name, _ in gate.named_parameters()] == ["bias"]
    assert_close(output, torch.sigmoid(gate.bias).expand_as(output))
    output.sum().backward()
    assert gate.bias.grad.abs().min() > 0


def test_gates_stay_in_float32_when_computed_in_bfloat16():
    config = SourceLayerConfig(num_heads=2, input_dim=8, weight=True, dtype="bfloat16")
    gate = build(config)
    x = torch.randn(2, 3, 8, dtype=torch.bfloat16)
    assert gate(x).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert gate(x).dtype == torch.float32


@pytest.mark.parametrize("value", [-1e6, 1e6])
@pytest.mark.parametrize("activation", ["tanh", "logsigmoid"])
def test_huge_pre_activations_stay_finite(value, activation):
    config = MarkLayerConfig(num_heads=2, input_dim=4, activation=activation, activation_scale=2.0, dtype="float32")
    gate = build(config)
    with torch.no_grad():
        gate.bias.fill_(value)
    output = gate(torch.zeros(1, 4))
    output.sum().backward()
    assert output.isfinite().all()
    assert gate.bias.grad.isfinite().all()


def test_wrong_number_of_features_is_refused():
    gate = build(SourceLayerConfig(num_heads=2, input_dim=8))
    with pytest.raises(ValueError, match=r"x: expected \[\.\.\., D\] with D=8, got \[2, 3, 7\]"):
        gate(torch.zeros(2, 3, 7))


SLICES = {"input_dim": 12, "num_heads": 4, "sub_heads": 2, "weight": True, **DTYPES}
SCALAR_GATES = [
    SourceLayerConfig(**SLICES),
    LongRangeTransitionLayerConfig(transition_dim=1, **SLICES),
    MarkLayerConfig(activation="tanh", activation_scale=2.0, **SLICES),
    SourceLayerConfig(**SLICES),
]


@pytest.mark.parametrize("grid", [(3,), (3, 5), (0, 5)])
def test_joint_gates_are_those_of_single_calls(grid, randomize, assert_close):
    gates = [randomize(build(config)) for config in SCALAR_GATES]
    x = torch.randn(2, *grid, 12, dtype=torch.float64, requires_grad=True)
    leaves = [x, *(parameter for gate in gates for parameter in gate.parameters())]
    joint, single = joint_gates(gates, x), [gate(x).movedim(len(grid) + 1, 1) for gate in gates]
    weights = [torch.randn_like(result) for result in single]
    for found, expected in zip(joint, single, strict=True):
        assert_close(found.detach(), expected.detach())
    gradients = (torch.autograd.grad(results, leaves, weights) for results in (joint, single))
    for found, expected in zip(*gradients, strict=True):
        assert_close(found, expected, kind="gradient")


def test_joint_gates_leave_no_hook_out():
    gates, seen = [build(config) for config in SCALAR_GATES], []
    gates[1].register_forward_hook(lambda *_: seen.append("called"))
    joint_gates(gates, torch.randn(2, 3, 12, dtype=torch.float64))
    assert seen == ["called"]
