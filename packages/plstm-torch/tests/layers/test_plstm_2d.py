import pytest
import torch

from plstm_config import IdentityConfig, pLSTM2DLayerConfig, pLSTM2DLayerFusedConfig
from plstm_config.shapes import DIRECTED
from plstm_torch.build import build
from plstm_torch.layers import plstm_2d as layer_module

DTYPES = {"dtype": "float64", "param_dtype": "float64"}
MATRIX = {"JQ": 2, "JK": 1, "JV": 2, "JT": 3, "JO": 2}
MODES = [{"mode": "P"}, {"mode": "D"}, {"mode": "D", "dmode_chirality": "R"}]


def layer(randomize, config_class=pLSTM2DLayerFusedConfig, **options):
    options = {"input_dim": 8, "num_heads": 2, **DTYPES, **options}
    return randomize(build(config_class(**options)), 0.4)


@pytest.mark.parametrize("grid", [(1, 1), (4, 3), (2, 7)])
@pytest.mark.parametrize("sizes", [{}, MATRIX], ids=["scalar", "matrix"])
@pytest.mark.parametrize("mode", [*MODES, {"mode": "P", "pmode_complement": "original"}], ids=str)
def test_fused_agrees_with_the_reference(mode, sizes, grid, randomize, by_reference, assert_close):
    module = layer(randomize, **mode, **sizes)
    x = torch.randn(2, *grid, 8, dtype=torch.float64)
    assert_close(module(x), by_reference(module, x))


@pytest.mark.parametrize("orientations", [[0], [3, 1], [2, 2, 0], [0, 1, 2, 3]], ids=str)
@pytest.mark.parametrize("sizes", [{}, MATRIX], ids=["scalar", "matrix"])
@pytest.mark.parametrize("mode", [*MODES, {"mode": "P", "pmode_complement": "original"}], ids=str)
def test_listed_orientations_agree_with_the_reference(mode, sizes, orientations, randomize, by_reference, assert_close):
    module = layer(randomize, pLSTM2DLayerConfig, orientation_combinations=orientations, **mode, **sizes)
    x = torch.randn(2, 3, 4, 8, dtype=torch.float64)
    assert_close(module(x), by_reference(module, x))


@pytest.mark.parametrize("config_class", [pLSTM2DLayerFusedConfig, pLSTM2DLayerConfig])
@pytest.mark.parametrize(
    "options",
    [
        {"additional_convolution": True, "convolution_inputs": "STMDQKO", "additional_passthrough": True},
        {"additional_convolution": True, "convolution_inputs": "VP", "additional_passthrough": True},
        {"additional_convolution": False, "additional_passthrough": False},
        {"tie_query_key": True},
        {"outprojection": False, "outprojection_bias": False},
        {"outprojection_bias": True},
    ],
    ids=lambda options: "-".join(f"{name}={value}" for name, value in options.items()),
)
@pytest.mark.parametrize("mode", ["P", "D"])
def test_parts_switch_on_and_off(mode, options, config_class, randomize, by_reference, assert_close):
    module = layer(randomize, config_class, mode=mode, **options)
    x = torch.randn(2, 3, 2, 8, dtype=torch.float64)
    assert_close(module(x), by_reference(module, x))


def test_both_layers_agree_where_they_must(randomize, assert_close):
    """Without a norm, the mean over four orientations is a quarter of their sum, except for the direct term."""
    options = {"mhnorm": IdentityConfig(), "outprojection": False, "additional_passthrough": False, "mode": "D"}
    options |= {"additional_convolution": False}
    listed = layer(randomize, pLSTM2DLayerConfig, **options)
    with torch.no_grad():
        listed.direct.bias.fill_(-1e3)
    fused = layer(randomize, **options)
    fused.load_state_dict(listed.state_dict())
    x = torch.randn(2, 5, 3, 8, dtype=torch.float64)
    assert_close(listed(x), fused(x) / 4)


@pytest.mark.parametrize("axes", [(1,), (2,), (1, 2)])
def test_four_equal_orientations_commute_with_flips(axes, randomize, assert_close):
    module = layer(randomize, mode="P", additional_convolution=False)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith(("source", "transition", "mark")):
                by_head = parameter.unflatten(0, (2, 4))
                parameter.copy_(by_head[:, :1].expand_as(by_head).flatten(0, 1))
            elif name.startswith("orientation"):
                parameter.copy_(parameter[:, :1].expand_as(parameter).clone())
    x = torch.randn(2, 4, 3, 8, dtype=torch.float64)
    assert_close(module(x.flip(axes)), module(x).flip(axes))


@pytest.mark.parametrize("operation", ["plstm_2d", "plstm_2d_oriented"])
def test_directed_mode_is_said_to_the_op(operation, randomize, monkeypatch):
    seen = {}
    original = getattr(layer_module, operation)

    def spy(*args, **kwargs):
        seen.update(kwargs)
        return original(*args, **kwargs)

    monkeypatch.setattr(layer_module, operation, spy)
    config_class = pLSTM2DLayerConfig if operation == "plstm_2d" else pLSTM2DLayerFusedConfig
    layer(randomize, config_class, mode="P")(torch.zeros(1, 2, 2, 8, dtype=torch.float64))
    assert seen["mode"] == "P"
    assert not seen.keys() & DIRECTED.keys()


def test_scaled_complement_is_bounded_and_the_original_is_not(randomize):
    def column_sums(complement):
        module = layer(randomize, mode="P", pmode_complement=complement)
        x = torch.randn(2, 3, 4, 8, dtype=torch.float64)
        gates = module._gates(x, x, lambda gate: gate)
        return gates["transition_rl"].abs() + gates["transition_du"].abs()

    assert column_sums("scaled").max() <= 1
    assert column_sums("original").max() > 1.1


@pytest.mark.parametrize("implementation", ["recurrent", "chunkwise", "parallel"])
@pytest.mark.parametrize("config_class", [pLSTM2DLayerFusedConfig, pLSTM2DLayerConfig])
def test_the_implementation_is_passed_on(config_class, implementation, randomize, assert_close):
    module = layer(randomize, config_class, implementation=implementation)
    automatic = layer(randomize, config_class)
    automatic.load_state_dict(module.state_dict())
    x = torch.randn(2, 5, 3, 8, dtype=torch.float64)
    assert_close(module(x), automatic(x))


@pytest.mark.parametrize("config_class", [pLSTM2DLayerFusedConfig, pLSTM2DLayerConfig])
def test_the_linspace_of_the_angle_runs_over_the_heads(config_class, assert_close):
    module = build(config_class(input_dim=12, num_heads=3, mode="P", **DTYPES))
    expected = torch.tensor([-2.0, 0.0, 2.0])[:, None].expand(3, 4)
    assert_close(module.orientation_bias, expected)
    assert module.orientation_weight.shape == (3, 4, 12)


@pytest.mark.parametrize("mode", ["P", "D"])
@pytest.mark.parametrize("config_class", [pLSTM2DLayerFusedConfig, pLSTM2DLayerConfig])
def test_gradients_reach_every_parameter(config_class, mode, randomize):
    module = layer(randomize, config_class, mode=mode, additional_convolution=True, additional_passthrough=True)
    x = torch.randn(2, 3, 4, 8, dtype=torch.float64, requires_grad=True)
    module(x).square().sum().backward()
    for name, parameter in [*module.named_parameters(), ("x", x)]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("shape", [(0, 3, 4, 8), (2, 0, 4, 8), (2, 3, 0, 8)])
@pytest.mark.parametrize("config_class", [pLSTM2DLayerFusedConfig, pLSTM2DLayerConfig])
def test_empty_inputs_pass(config_class, shape, randomize):
    module = layer(randomize, config_class, additional_convolution=True)
    assert module(torch.zeros(shape, dtype=torch.float64)).shape == shape


@pytest.mark.parametrize("config_class", [pLSTM2DLayerFusedConfig, pLSTM2DLayerConfig])
def test_wrong_inputs_are_refused(config_class, randomize):
    module = layer(randomize, config_class)
    with pytest.raises(ValueError, match=r"x: expected \[B, X, Y, D\] with D=8, got \[2, 4, 8\]"):
        module(torch.zeros(2, 4, 8))
    with pytest.raises(ValueError, match=r"x: expected \[B, X, Y, D\] with D=8, got \[2, 4, 4, 6\]"):
        module(torch.zeros(2, 4, 4, 6))
