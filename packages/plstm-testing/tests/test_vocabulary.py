"""One word per role: the trees of the backends beside this package name files, ops and functions alike."""

import ast
from pathlib import Path
from typing import get_args

import pytest

from plstm_config.transition import NormalizationMode

PACKAGES = Path(__file__).parents[2]
ROOTS = {backend: PACKAGES / f"plstm-{backend}" / "src" / f"plstm_{backend}" for backend in ("torch", "jax")}
OPS = ("_plstm_1d", "_plstm_2d", "_plstm_graph")
ALONE = {
    ("torch", "_plstm_1d"): {
        "careful": "JAX: ops/arrays.py keeps what is not finite apart inside of its products",
        "decay": "JAX: ops/lines.py, which serves sequences and grids",
        "exported": "what torch.export hands to other runtimes",
        "matrix_segment": "passes by hand, which JAX has no need of",
    },
    ("jax", "_plstm_1d"): {"problem": "torch hands on a tuple of tensors"},
    ("torch", "_plstm_2d"): {
        "native_mask": "JAX: native.py, where both forms are few lines",
        "native_walk": "JAX: native.py, where both forms are few lines",
        "exported": "what torch.export hands to other runtimes",
        "lines": "JAX: ops/lines.py, which serves sequences and grids",
        "attention": "JAX: ops/arrays.py, where sequences and graphs share it",
    },
    ("jax", "_plstm_2d"): {"directed": "torch takes the general form for P-mode, as fast there"},
    ("torch", "_plstm_graph"): {
        "compiled": "JAX compiles whatever it is given, with a plan as its input",
        "native_indices": "JAX: the handler in C, since a plan may be traced",
        "layout": "JAX: plan.py, whose arrays have static sizes in any case",
    },
    ("jax", "_plstm_graph"): {
        "triangular": "torch calls LAPACK",
        "spoilt": "torch: in levels.py and dense.py, whose passes are written by hand",
    },
}
# What JAX exports besides the ops: topologies of static size.
OPS_OF_JAX_ALONE = {"GraphPlan", "plan_graph"}


def modules(folder):
    return {path.stem for path in folder.glob("*.py")} - {"__init__"}


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def exported(path):
    """The names in `__all__` of a file."""
    for node in parsed(path).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            return set(ast.literal_eval(node.value))
    raise AssertionError(f"expected __all__ in {path}")


def functions(backend):
    """The public functions of `functional`, a module or a package, with the names of their parameters."""
    root = ROOTS[backend]
    single = root / "functional.py"
    files = [single] if single.exists() else sorted((root / "functional").glob("*.py"))
    found = {}
    for path in files:
        for node in parsed(path).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                found[node.name] = [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
    return found


def axes(backend, op):
    """The axes of the arrays that public functions of an op are annotated with, by function and parameter."""
    found = {}
    for path in (ROOTS[backend] / "ops" / op / f"{name}.py" for name in ("op", "step")):
        for node in parsed(path).body if path.exists() else ():
            if isinstance(node, ast.FunctionDef) and node.name.startswith("plstm_"):
                given = (*node.args.args, *node.args.kwonlyargs)
                hints = {argument.arg: argument.annotation for argument in given} | {"return": node.returns}
                found[node.name] = {name: spelled(hint) for name, hint in hints.items()}
    return found


def spelled(hint):
    texts = [one.value for one in ast.walk(hint) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return [text for text in texts if text]  # an array without axes stands for a number


@pytest.mark.parametrize("op", OPS)
def test_axes_of_the_ops_are_spelled_alike(op):
    torch, jax = axes("torch", op), axes("jax", op)
    assert torch
    assert torch == jax


@pytest.mark.parametrize("op", OPS)
def test_files_of_the_ops_have_the_same_names(op):
    found = {backend: modules(root / "ops" / op) for backend, root in ROOTS.items()}
    assert found["torch"] - found["jax"] == ALONE["torch", op].keys()
    assert found["jax"] - found["torch"] == ALONE["jax", op].keys()
    assert "op" in found["torch"]


@pytest.mark.parametrize("backend", list(ROOTS))
def test_no_op_hides_a_module(backend):
    folder = ROOTS[backend] / "ops"
    members = modules(folder) | {path.name for path in folder.iterdir() if path.is_dir()}
    assert not exported(folder / "__init__.py") & members


def test_ops_have_the_same_names():
    torch, jax = (exported(root / "ops" / "__init__.py") for root in ROOTS.values())
    assert jax - torch == OPS_OF_JAX_ALONE
    assert not torch - jax


def test_functions_have_the_same_names_and_parameters():
    torch, jax = functions("torch"), functions("jax")
    assert torch.items() <= jax.items()
    assert set(get_args(NormalizationMode)) <= torch.keys()
