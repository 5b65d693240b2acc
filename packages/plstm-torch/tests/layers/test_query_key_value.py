import pytest
import torch

from plstm_config import KeyLayerConfig, QueryLayerConfig, ValueLayerConfig
from plstm_torch.build import build

DTYPES = {"dtype": "float64", "param_dtype": "float64"}
KINDS = {
    "query": (QueryLayerConfig, "DK", "JQ"),
    "key": (KeyLayerConfig, "DK", "JK"),
    "value": (ValueLayerConfig, "DV", "JV"),
}


@pytest.mark.parametrize("sub_heads", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_formula(kind, sub_heads, randomize, assert_close):
    config_class, head_name, state_name = KINDS[kind]
    sizes = {head_name: 6, state_name: 3}
    layer = randomize(build(config_class(num_heads=4, sub_heads=sub_heads, input_dim=16, **sizes, **DTYPES)))
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    groups = max(1, 4 // sub_heads)
    part = 6 // max(1, sub_heads // 4)
    width = 16 // sub_heads
    assert layer.weight.shape == (groups, part, 3, sub_heads, width)
    heads = torch.stack(
        [
            torch.einsum("btd,kjd->btkj", x[..., i * width : (i + 1) * width], layer.weight[p, :, :, i])
            for p in range(groups)
            for i in range(sub_heads)
        ],
        dim=2,
    )
    assert_close(layer(x), heads.reshape(2, 5, 4, 6, 3) + layer.bias)


@pytest.mark.parametrize("kind", KINDS)
def test_l2_normalization_is_over_the_state_dimension(kind, randomize, assert_close):
    config_class, head_name, state_name = KINDS[kind]
    sizes = {head_name: 4, state_name: 2}
    plain = randomize(build(config_class(num_heads=2, sub_heads=2, input_dim=8, **sizes, **DTYPES)))
    normal = build(config_class(num_heads=2, sub_heads=2, input_dim=8, normalization="l2", **sizes, **DTYPES))
    normal.load_state_dict(plain.state_dict())
    x = torch.randn(3, 8, dtype=torch.float64)
    z = plain(x)
    assert_close(normal(x), z / (z.square().mean(-1, keepdim=True) + 1e-5).sqrt())


def test_bias_can_be_left_out():
    layer = build(QueryLayerConfig(num_heads=2, sub_heads=2, input_dim=8, DK=4, bias=False, **DTYPES))
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    assert layer(torch.zeros(3, 8)).abs().max() == 0


def test_output_has_the_configured_dtype():
    layer = build(KeyLayerConfig(num_heads=2, sub_heads=2, input_dim=8, DK=4, dtype="bfloat16"))
    assert layer.weight.dtype == torch.float32
    assert layer(torch.zeros(3, 8)).dtype == torch.bfloat16


def test_wrong_number_of_features_is_refused():
    layer = build(ValueLayerConfig(num_heads=2, sub_heads=2, input_dim=8, DV=4))
    with pytest.raises(ValueError, match=r"x: expected \[\.\.\., D\] with D=8, got \[2, 16\]"):
        layer(torch.zeros(2, 16))
