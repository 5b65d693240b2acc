"""The package as such: what importing it brings and costs, what it exports, its command."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import plstm_jax
import plstm_nnx
from plstm_jax.__main__ import main

FOREIGN = ("torch", "rich", "typer", "pandas", "matplotlib", "sklearn", "scipy", "networkx", "yaml", "plstm_testing")
# of our own, what building a module has no need of
UNUSED = ("safetensors", "plstm_config.folder", "plstm_config.original", "plstm_config.presets", "plstm_jax.pretrained")


def printed(code, **options):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout.strip()


def test_importing_brings_nothing_that_is_not_used():
    # some of them come with flax itself
    code = "import sys, flax.nnx; before = set(sys.modules); import plstm_nnx; plstm_nnx.build, plstm_nnx.models\n"
    code += f"print([name for name in {FOREIGN + UNUSED!r} if name in set(sys.modules) - before])"
    assert printed(code) == "[]"


def test_the_package_alone_imports_nothing():
    code = "import sys, plstm_nnx; print([name for name in ('jax', 'flax', 'numpy') if name in sys.modules])"
    assert printed(code) == "[]"


def test_no_source_file_speaks_of_torch():
    folder = Path(plstm_nnx.__file__).parent
    found = [path.name for path in folder.rglob("*.py") if re.search(r"\btorch\b", path.read_text(encoding="utf-8"))]
    assert found == []


def test_no_expression_on_arrays_stands_here():
    folder = Path(plstm_nnx.__file__).parent
    used = re.compile(r"jax\.numpy|\bjnp\b|\blax\b|einsum|\.astype|\.reshape| @ ")
    assert [path.name for path in folder.rglob("*.py") if used.search(path.read_text(encoding="utf-8"))] == []


def test_the_version_is_that_of_the_distribution():
    assert plstm_nnx.__version__ == metadata.version("plstm-nnx")


def test_every_exported_name_exists():
    for name in plstm_nnx.__all__:
        assert hasattr(plstm_nnx, name), name
    assert set(dir(plstm_nnx)) == set(plstm_nnx.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Linear'"):
        _ = plstm_nnx.Linear


def test_the_ops_are_those_of_plain_jax():
    for name in plstm_jax.ops.__all__:
        assert getattr(plstm_nnx.ops, name) is getattr(plstm_jax.ops, name)


def test_the_command_names_itself(capsys):
    assert plstm_nnx.__version__ in printed(
        "import runpy, sys; sys.argv = ['x', '--version']\nrunpy.run_module('plstm_nnx', run_name='__main__')"
    )
    with pytest.raises(SystemExit):
        main(["--help"], prog="python -m plstm_nnx", description="pLSTM in flax.nnx")
    assert "python -m plstm_nnx" in capsys.readouterr().out
