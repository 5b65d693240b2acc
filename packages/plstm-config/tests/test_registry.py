"""The registry that backends instantiate."""

import sys
from pathlib import Path

import pytest

import plstm_config as pc
from plstm_config.registry import Registry

LATE: Registry[str] = Registry("home_of_norms")


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


def test_homes_are_imported_when_something_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home_of_norms.py").write_text(
        "import plstm_config, test_registry\ntest_registry.LATE.register(plstm_config.RMSNormConfig)(repr)"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "test_registry", sys.modules[__name__])
    assert "home_of_norms" not in sys.modules
    assert LATE.find(pc.RMSNormConfig()) is repr
    del sys.modules["home_of_norms"]
