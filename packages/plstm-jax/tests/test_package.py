"""The package as such: what importing it brings, what it exports, and that it stands without torch."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import plstm_config
import plstm_jax
import plstm_testing
from plstm_jax import blocks, layers, models

FOREIGN = ("torch", "flax", "rich", "typer", "pandas")


def test_importing_brings_no_foreign_package():
    code = f"import sys, plstm_jax, plstm_jax.check; print([name for name in {FOREIGN!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("package", [plstm_config, plstm_testing, plstm_jax], ids=lambda package: package.__name__)
def test_no_source_file_speaks_of_torch(package):
    folder = Path(package.__file__).parent
    # words that say what an original option or file was are data about the past, not a dependence
    speaks = [path for path in folder.rglob("*.py") if re.search(r"\btorch\b", path.read_text(encoding="utf-8"))]
    assert [str(path.relative_to(folder)) for path in speaks] == []


def test_the_ops_come_without_configs():
    code = "import sys, plstm_jax.ops; print([name for name in sys.modules if name.startswith(('yaml', 'compoconf', "
    code += "'plstm_config.base', 'plstm_testing', 'plstm_jax.layers'))])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_importing_a_module_of_formulas_alone_works():
    for name in ("pretrained", "running"):
        subprocess.run([sys.executable, "-c", f"import plstm_jax.{name}"], check=True)


def test_the_version_is_that_of_the_distribution():
    assert plstm_jax.__version__ == metadata.version("plstm-jax")


def test_every_exported_name_exists():
    for module in (plstm_jax, plstm_jax.ops, plstm_jax.functional, blocks, layers, models):
        for name in module.__all__:
            assert hasattr(module, name), f"{module.__name__}.{name}"
