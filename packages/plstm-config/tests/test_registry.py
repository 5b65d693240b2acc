"""The registry that backends instantiate."""

import pytest

import plstm_config as pc
from plstm_config.registry import Registry


def test_registries_are_apart() -> None:
    first: Registry[str] = Registry()
    second: Registry[str] = Registry()

    @first.register(pc.RMSNormConfig)
    def make(config: pc.RMSNormConfig) -> str:
        return "norm"

    assert first.register(pc.RMSNormConfig)(make) is make
    assert first.find(pc.RMSNormConfig()) is make
    assert (first.names(), second.names()) == (("RMSNormConfig",), ())
    with pytest.raises(ValueError, match=r"^config_class: expected .*, got RMSNormConfig, held by .*make.*, for other"):

        @first.register(pc.RMSNormConfig)
        def other(config: pc.RMSNormConfig) -> str:
            return "other"

    with pytest.raises(TypeError, match=r"^config: expected an instance of one of RMSNormConfig, got LayerNormConfig$"):
        first.find(pc.LayerNormConfig())
    with pytest.raises(TypeError, match=r"got str; plstm_config\.preset\('vit_tiny'\) makes the config of that name$"):
        first.find("vit_tiny")
