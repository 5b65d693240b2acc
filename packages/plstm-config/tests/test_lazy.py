"""Packages that import their names when they are asked for."""

import sys

import pytest


@pytest.fixture
def package(tmp_path, monkeypatch):
    place = tmp_path / "slow_package"
    place.mkdir()
    files = {
        "__init__": "from plstm_config.lazy import lazily\n__version__ = '1'\n"
        "places = {'part': '.part', 'value': '.part', 'join': 'os.path'}\n"
        "__getattr__, __dir__ = lazily(__name__, places)",
        "part": "value = 3",
    }
    for name, text in files.items():
        (place / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield "slow_package"
    for name in [name for name in sys.modules if name.startswith("slow_package")]:
        del sys.modules[name]


def test_names_come_when_they_are_asked_for(package):
    module = __import__(package)
    assert dir(module) == ["__version__", "join", "part", "value"]
    assert not [name for name in sys.modules if name.startswith(f"{package}.")]
    assert module.join("a", "b")
    assert f"{package}.part" not in sys.modules
    assert (module.value, module.part.value) == (3, 3)
    assert {"value", "part", "join"} <= vars(module).keys()  # and is not asked for again


def test_other_names_are_unknown(package):
    with pytest.raises(AttributeError, match="module 'slow_package' has no attribute 'other'"):
        _ = __import__(package).other
