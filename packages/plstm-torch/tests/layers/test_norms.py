import pytest
import torch
from torch.nn import functional as F

from plstm_config import (
    IdentityConfig,
    LayerNormConfig,
    MultiHeadLayerNormConfig,
    MultiHeadRMSNormConfig,
    RMSNormConfig,
)
from plstm_torch.build import build

DTYPES = {"dtype": "float64", "param_dtype": "float64"}


@pytest.mark.parametrize("flags", [(False, False), (True, False), (False, True), (True, True)])
def test_feature_norms_agree_with_torch(flags, randomize, assert_close):
    scale, bias = flags
    sizes = {"input_dim": 6, "scale": scale, "bias": bias, **DTYPES}
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    layer_norm, rms_norm = (randomize(build(config(**sizes))) for config in (LayerNormConfig, RMSNormConfig))
    assert {name for name, _ in rms_norm.named_parameters()} == {
        name for name, flag in (("scale", scale), ("bias", bias)) if flag
    }
    assert_close(layer_norm(x), F.layer_norm(x, (6,), layer_norm.scale, layer_norm.bias, 1e-5))
    expected = F.rms_norm(x, (6,), rms_norm.scale, 1e-5)
    assert_close(rms_norm(x), expected if rms_norm.bias is None else expected + rms_norm.bias)


@pytest.mark.parametrize("axis", [0, 1, 2, -2, None])
@pytest.mark.parametrize("config_class", [MultiHeadRMSNormConfig, MultiHeadLayerNormConfig])
def test_heads_are_normalised_by_themselves(config_class, axis, randomize, assert_close):
    norm = randomize(build(config_class(num_heads=2, input_dim=6, axis=axis, bias=True, **DTYPES)))
    assert norm.scale.shape == (2, 3)
    heads = torch.randn(2, 4, 5, 3, dtype=torch.float64)  # the heads first
    head_class = RMSNormConfig if config_class is MultiHeadRMSNormConfig else LayerNormConfig
    expected = []
    for index in range(2):
        single = build(head_class(input_dim=3, bias=True, **DTYPES))
        single.load_state_dict({"scale": norm.scale[index].detach(), "bias": norm.bias[index].detach()})
        expected.append(single(heads[index]))
    expected = torch.stack(expected)
    if axis is None:
        assert_close(norm(heads.movedim(0, 2).flatten(2)), expected.movedim(0, 2).flatten(2))
    else:
        assert_close(norm(heads.movedim(0, axis)), expected.movedim(0, axis))


def test_statistics_of_narrow_inputs_are_taken_in_float32(assert_close):
    norm = build(RMSNormConfig(input_dim=512, dtype="float32"))
    x = (torch.randn(4, 512) * 300).to(torch.float16)  # squares overflow in float16
    assert_close(norm(x), F.rms_norm(x.double(), (512,), eps=1e-5), "float32")
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(norm(x), F.rms_norm(x.double(), (512,), eps=1e-5), "float32")


def test_identity_returns_its_input():
    x = torch.randn(2, 3)
    assert build(IdentityConfig())(x) is x


@pytest.mark.parametrize("config_class", [RMSNormConfig, LayerNormConfig])
def test_wrong_number_of_features_is_refused(config_class):
    with pytest.raises(ValueError, match=r"x: expected \[\.\.\., D\] with D=6, got \[2, 5\]"):
        build(config_class(input_dim=6))(torch.zeros(2, 5))


@pytest.mark.parametrize("shape", [(2, 3, 3), (2,), (3, 2, 4)])
def test_wrong_heads_are_refused(shape):
    norm = build(MultiHeadRMSNormConfig(num_heads=2, input_dim=6, axis=1))
    with pytest.raises(ValueError, match=r"x: expected (num_heads=2 on axis 1|.* D=3), got"):
        norm(torch.zeros(shape))
