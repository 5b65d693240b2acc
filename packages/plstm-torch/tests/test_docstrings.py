"""Docstrings: one dialect, and examples that run."""

import pytest
import torch

from plstm_testing.conformance import docstrings

pytest.importorskip("torch_geometric")  # here, since its import warns

PUBLIC = ("layers", "blocks", "models", "ops", "functional", "generation", "initializers", "parallel", "pyg")
LIKE_OTHERS = {
    "KeyLayer": "as QueryLayer, with another name for the same map",
    "ValueLayer": "as QueryLayer, with another name for the same map",
    "SigmoidFunctionLayer": "as TanhFunctionLayer",
    "TanhFunctionLayer": "tanh, as its name says",
    "parallel": "a package, which shares its name with a form of the 2D op",
}


def test_dialect():
    assert docstrings.run("plstm_torch") == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch_geometric")
def test_examples_run():
    assert docstrings.run_examples("plstm_torch", lambda: torch.manual_seed(0)) == []


def test_everything_public_has_an_example():
    modules = ["plstm_torch", *(f"plstm_torch.{name}" for name in PUBLIC)]
    assert docstrings.without_example("plstm_torch", modules, LIKE_OTHERS) == []
