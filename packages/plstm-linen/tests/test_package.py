"""The package as such: what importing it brings, what it exports, and that its annotations are true."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import plstm_jax.ops
import plstm_linen

ADAPTER = Path(__file__).parents[1] / "conformance" / "adapter.py"
FOREIGN = ("torch", "rich", "typer", "pandas", "matplotlib", "sklearn", "scipy", "networkx", "yaml", "plstm_testing")
# of our own, what building a module has no need of
UNUSED = ("safetensors", "plstm_config.folder", "plstm_config.original", "plstm_config.presets", "plstm_jax.generation")
MODULES = [f"plstm_linen.{name}" for name in ("module", "names", "pretrained", "generation", "scope")]


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_importing_brings_nothing_that_is_not_used():
    # some of them come with flax itself
    code = "import sys, flax.linen; before = set(sys.modules); import plstm_linen; plstm_linen.build\n"
    code += f"print([name for name in {FOREIGN + UNUSED!r} if name in set(sys.modules) - before])"
    assert python("-c", code).stdout.strip() == "[]"


def test_the_package_alone_imports_nothing():
    code = "import sys, plstm_linen; print([name for name in ('jax', 'flax', 'numpy') if name in sys.modules])"
    assert python("-c", code).stdout.strip() == "[]"


def test_no_source_file_speaks_of_torch():
    folder = Path(plstm_linen.__file__).parent
    speaks = [path for path in folder.rglob("*.py") if re.search(r"\btorch\b", path.read_text(encoding="utf-8"))]
    assert speaks == []


def test_the_version_is_that_of_the_distribution():
    assert plstm_linen.__version__ == metadata.version("plstm-linen")


def test_every_exported_name_exists():
    for name in plstm_linen.__all__:
        assert hasattr(plstm_linen, name), name
    assert set(dir(plstm_linen)) == set(plstm_linen.__all__)
    assert callable(plstm_linen.build)
    assert all(getattr(plstm_linen.ops, name) is getattr(plstm_jax.ops, name) for name in plstm_linen.ops.__all__)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_may_be_imported_first(name):
    assert python("-c", f"import {name}").returncode == 0


def test_the_command_line_is_that_of_the_package():
    result = python("-m", "plstm_linen", "--version")
    assert result.stdout.strip() == plstm_linen.__version__


def test_annotations_hold():
    """Some of the suite's golden modules, with every annotation enforced."""
    code = f"""
from jaxtyping import install_import_hook
from plstm_testing.conformance.adapter import load_adapter
from plstm_testing.conformance.checks import all_checks
with install_import_hook({MODULES!r}, "beartype.beartype"):
    adapter = load_adapter({str(ADAPTER)!r})
adapter.module_classes = ()
for check in all_checks(adapter)["golden_modules"][::6]:
    check.run()
"""
    result = python("-c", code)
    assert result.returncode == 0, result.stderr


def test_no_expression_on_arrays_stands_here():
    used = re.compile(r"jax\.numpy|\bjnp\b|\blax\b|einsum|\.astype|\.reshape| @ ")
    folder = Path(plstm_linen.__file__).parent
    assert [path.name for path in folder.rglob("*.py") if used.search(path.read_text(encoding="utf-8"))] == []
