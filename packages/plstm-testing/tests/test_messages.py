"""One dialect of errors, in the packages that know no framework; and the test of it."""

import sys
from textwrap import dedent

import pytest

from plstm_testing.conformance import messages


def test_plstm_config():
    exceptions = {
        "message": "`require` is handed the message",
        "problem": "found before it is raised",
    }
    assert messages.run("plstm_config", exceptions, makers={"require": 1}) == []


def test_plstm_testing():
    assert messages.run("plstm_testing", {}) == []


def test_other_dialects_are_found(tmp_path, monkeypatch):
    (tmp_path / "foreign").mkdir()
    source = """
        def check(size, given):
            if size < 1:
                raise ValueError("size must be positive")
            if size > 9:
                raise ValueError(f"size={size}: expected less, got more")
            if size > 8:
                raise TypeError(f"{given}.size: expected at most {8}, got {size}")
            raise TypeError(given)
    """
    (tmp_path / "foreign" / "__init__.py").write_text(dedent(source))
    monkeypatch.syspath_prepend(str(tmp_path))
    found = messages.run("foreign", {"given": "handed on", "spam": "gone"})
    sys.modules.pop("foreign", None)
    assert [line.split(":")[0] for line in found] == ["__init__.py", "__init__.py", "exceptions"]
    with pytest.raises(ValueError, match=r"^package: expected an installed package, got 'no_such_package'"):
        messages.run("no_such_package", {})
