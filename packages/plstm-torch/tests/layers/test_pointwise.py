import pytest
import torch

from plstm_config import (
    DropPathConfig,
    ExpExpFunctionConfig,
    LinearConfig,
    PassthroughLayerConfig,
    ScaleLayerConfig,
    SigmoidFunctionConfig,
    SoftCapFunctionConfig,
    TanhFunctionConfig,
    ZerosInitConfig,
)
from plstm_torch.build import build

DTYPES = {"dtype": "float64", "param_dtype": "float64"}


@pytest.mark.parametrize("config_class", [PassthroughLayerConfig, ScaleLayerConfig])
def test_scales_multiply_each_feature(config_class, randomize, assert_close):
    layer = randomize(build(config_class(input_dim=4, **DTYPES)))
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    assert_close(layer(x), x * layer.scale)
    with pytest.raises(ValueError, match=r"x: expected \[\.\.\., D\] with D=4, got \[2, 5\]"):
        layer(torch.zeros(2, 5))


@pytest.mark.parametrize("scale_by_keep", [True, False])
def test_drop_path_drops_whole_samples_in_training_only(scale_by_keep):
    layer = build(DropPathConfig(drop_prob=0.25, scale_by_keep=scale_by_keep))
    x = torch.ones(4000, 2, 3)
    output = layer(x)
    kept = 1 / 0.75 if scale_by_keep else 1.0
    samples = output.flatten(1)
    assert torch.equal(samples.amin(1), samples.amax(1))
    assert set(samples[:, 0].unique().tolist()) == {0.0, torch.tensor(kept).item()}
    share = (samples[:, 0] == 0).double().mean().item()
    assert abs(share - 0.25) < 0.03  # more than four standard deviations
    assert layer.eval()(x) is x


def test_drop_path_follows_the_seed():
    layer = build(DropPathConfig(drop_prob=0.5))
    x = torch.randn(64, 3)
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    assert torch.equal(layer(x), first)


def test_drop_path_of_nothing_is_the_input():
    x = torch.randn(5, 3)
    assert build(DropPathConfig(drop_prob=0.0))(x) is x


def test_scalar_functions(assert_close):
    x = torch.linspace(-20, 20, 81, dtype=torch.float64)
    assert_close(build(TanhFunctionConfig())(x), torch.tanh(x))
    assert_close(build(SigmoidFunctionConfig())(x), 1 / (1 + torch.exp(-x)))
    assert_close(build(ExpExpFunctionConfig(scale=0.3))(x), torch.exp(-0.3 * torch.exp(-x)))
    assert_close(build(SoftCapFunctionConfig(scale=5.0))(x), 5 * torch.tanh(x / 5))


def test_exp_exp_has_finite_gradients_far_out():
    x = torch.tensor([-1e4, -200.0, 0.0, 1e4], requires_grad=True)
    build(ExpExpFunctionConfig())(x).sum().backward()
    assert x.grad.isfinite().all()


def test_linear_maps_are_those_of_torch_to_others():
    layer = build(LinearConfig(input_dim=4, output_dim=3))
    assert isinstance(layer, torch.nn.Linear)
    assert (layer.in_features, layer.out_features, layer.bias.shape) == (4, 3, (3,))
    torch.manual_seed(5)
    once = torch.rand(1)
    torch.manual_seed(5)
    build(LinearConfig(input_dim=4, output_dim=3, weight_init=ZerosInitConfig()))
    assert torch.equal(torch.rand(1), once)  # torch draws no weights of its own
