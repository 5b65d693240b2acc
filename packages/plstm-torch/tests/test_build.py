import pytest
import torch

from plstm_config import RMSNormConfig, SourceLayerConfig
from plstm_torch import layers
from plstm_torch.build import build, register, registered_configs
from plstm_torch.dtypes import accumulation_dtype, full_precision, torch_dtype, without_autocast


def test_the_config_class_decides_the_module_class():
    assert type(build(RMSNormConfig(input_dim=4))) is layers.RMSNorm
    assert type(build(SourceLayerConfig(input_dim=4))) is layers.SourceLayer


def test_module_names_are_the_config_names_without_config():
    from plstm_torch.build import REGISTRY

    assert {config.__name__: module.__name__ for config, module in REGISTRY.classes.items()} == {
        name: name.removesuffix("Config") + ("Layer" if name.endswith("FunctionConfig") else "")
        for name in registered_configs()
    }


def test_unknown_configs_list_the_known_ones():
    with pytest.raises(TypeError, match=r"config: expected an instance of one of .*RMSNormConfig.*, got dict"):
        build({"class_name": "RMSNorm"})


def test_names_of_presets_point_to_them():
    with pytest.raises(TypeError, match=r"got str; plstm_config\.preset\('plstm_vis_tiny'\) makes the config of that"):
        build("plstm_vis_tiny")
    with pytest.raises(TypeError, match=r"got str; plstm_config\.preset_names\(\) lists the names"):
        build("plstm_vis")


def test_a_config_class_is_registered_once():
    with pytest.raises(ValueError, match=r"config_class: expected .*, got RMSNormConfig, held by .*, for Other"):

        @register(RMSNormConfig)
        class Other(torch.nn.Module):
            pass

    assert register(RMSNormConfig)(layers.RMSNorm) is layers.RMSNorm


def test_a_new_config_class_can_join():
    class TwiceConfig:
        pass

    @register(TwiceConfig)
    class Twice(torch.nn.Module):
        def __init__(self, config):
            super().__init__()
            self.config = config

    config = TwiceConfig()
    try:
        assert build(config).config is config
        assert "TwiceConfig" in registered_configs()
    finally:
        from plstm_torch.build import REGISTRY

        del REGISTRY.classes[TwiceConfig]


def test_dtype_names():
    assert torch_dtype("bfloat16") is torch.bfloat16
    with pytest.raises(
        ValueError, match="dtype: expected one of 'float64', 'float32', 'bfloat16', 'float16', got 'int8'"
    ):
        torch_dtype("int8")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_nothing_is_accumulated_below_float32(dtype):
    expected = torch.float64 if dtype is torch.float64 else torch.float32
    assert accumulation_dtype(dtype) is expected
    assert full_precision(torch.zeros(2, dtype=dtype)).dtype is expected


def test_autocast_can_be_kept_out():
    x = torch.randn(3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with without_autocast(x):
            assert (x @ x).dtype == torch.float32
    with without_autocast(torch.zeros(2, device="meta")):
        pass
