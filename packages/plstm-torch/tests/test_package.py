"""The package as such: what importing it brings, and what it exports."""

import subprocess
import sys
from importlib import metadata

import plstm_torch

FOREIGN = ("jax", "flax", "sklearn", "PIL", "matplotlib", "typer", "pandas")


def test_importing_brings_no_foreign_package() -> None:
    code = f"import sys, plstm_torch; print([name for name in {FOREIGN!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_version_is_that_of_the_distribution() -> None:
    assert plstm_torch.__version__ == metadata.version("plstm-torch")


def test_every_exported_name_exists() -> None:
    for module in (plstm_torch, plstm_torch.blocks, plstm_torch.models):
        for name in module.__all__:
            assert hasattr(module, name), f"{module.__name__}.{name}"
