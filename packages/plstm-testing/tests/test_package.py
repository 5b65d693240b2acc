"""The package stands on numpy alone, and its golden data travel with it."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import plstm_testing
from plstm_testing import golden
from plstm_testing.conformance import Check, all_checks
from plstm_testing.conformance.lacks import NotAskedError

SOURCES = sorted(Path(plstm_testing.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_framework_is_mentioned(path):
    assert not re.search(r"\b(torch|jax|flax|tensorflow)\b", path.read_text(encoding="utf-8"))


def test_importing_brings_in_no_framework_and_no_test_runner():
    code = (
        "import sys, plstm_testing.reference, plstm_testing.selfcheck, plstm_testing.golden, plstm_testing.conformance;"
        "sys.exit(str([name for name in ('torch', 'jax', 'flax', 'pytest') if name in sys.modules] or ''))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.strip() == ""


def test_recordings_stay_outside():
    names = {path.suffix for path in Path(plstm_testing.__file__).parent.rglob("*") if path.is_file()}
    assert names <= {".py", ".pyc", ".typed"}


def test_without_the_recordings_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "plstm_golden", None)
    golden._index.cache_clear()
    with pytest.raises(ModuleNotFoundError, match=re.escape('run: pip install "plstm-testing[conformance]"')):
        golden.names()


def test_readme_examples_run():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert len(examples) == 3
    for example in examples:
        exec(example, {})


def test_the_stranger_of_the_readme_passes_what_it_is_asked_for():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (adapter,) = (block for block in re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL) if "Adapter" in block)
    names: dict[str, Any] = {}
    exec(adapter, names)
    asked = [check for checks in all_checks(names["adapter"]).values() for check in checks]
    passed = [check.name for check in asked if _passes(check)]
    assert len(passed) > 50


def _passes(check: Check) -> bool:
    try:
        check.run()
    except NotAskedError:
        return False
    return True
