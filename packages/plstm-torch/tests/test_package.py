"""The package as such: what importing it brings, and what it exports."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import plstm_torch

FOREIGN = ("jax", "flax", "sklearn", "PIL", "matplotlib", "pandas", "tyro", "rich", "filelock", "lightning_fabric")


def test_importing_brings_no_foreign_package() -> None:
    names = "plstm_torch, plstm_torch.check, plstm_torch.training.loop, plstm_torch.training.tasks"
    code = f"import sys, {names}; plstm_torch.models; print([name for name in {FOREIGN!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_nothing_needs_triton_but_a_launch() -> None:
    code = """
import sys
sys.modules["triton"] = None  # as if it were not installed; torch itself asks for it
import torch, plstm_torch.ops, plstm_torch.check
from plstm_torch.ops._triton import support
print(support.no_machine("cuda", 0))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "the package triton is not installed" in result.stdout


def test_the_version_is_that_of_the_distribution() -> None:
    assert plstm_torch.__version__ == metadata.version("plstm-torch")


def test_every_exported_name_exists() -> None:
    for module in (plstm_torch, plstm_torch.blocks, plstm_torch.models):
        for name in module.__all__:
            assert hasattr(module, name), f"{module.__name__}.{name}"


def test_torch_is_imported_with_the_first_name() -> None:
    code = """
import sys
import plstm_torch, plstm_torch.settings
assert "torch" not in sys.modules
import plstm_torch.build, plstm_torch.pretrained
from plstm_torch.build import build
from plstm_config import pLSTM1DLayerConfig
assert plstm_torch.build is build and callable(plstm_torch.build)
build(pLSTM1DLayerConfig(input_dim=8, num_heads=2))
assert set(plstm_torch.__all__) <= set(dir(plstm_torch))
try:
    plstm_torch.no_such_name
except AttributeError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "module 'plstm_torch' has no attribute 'no_such_name'"


def test_the_compiler_is_not_imported() -> None:
    """It takes longer to load than all of this package; only the graph op, when it runs, has to speak with it."""
    code = """
import sys
import torch
import plstm_config, plstm_torch
plstm_torch.ops, plstm_torch.models
layer = plstm_torch.build(plstm_config.pLSTM1DLayerConfig(input_dim=8, num_heads=2))
layer(torch.rand(1, 5, 8)).sum().backward()
print([name for name in ("torch._dynamo", "sympy", "triton") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_only_the_registry_of_tasks_knows_the_tasks() -> None:
    """The modules of the training form no circle."""
    folder = Path(plstm_torch.__file__).parent / "training"
    uses = {
        path.stem: set(re.findall(r"from plstm_torch\.training(?:\.| import )(\w+)", path.read_text(encoding="utf-8")))
        for path in folder.glob("*.py")
        if path.stem != "__init__"
    }
    while uses:
        free = [name for name, used in uses.items() if not used & uses.keys()]
        assert free, f"a circle among {sorted(uses)}"
        for name in free:
            del uses[name]
