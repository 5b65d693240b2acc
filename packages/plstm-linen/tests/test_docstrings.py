"""Docstrings: one dialect, and examples that run."""

from plstm_testing.conformance import docstrings

BRIEF = {"scope.py": "plstm_jax.formulas.Scope describes its methods"}


def test_dialect():
    assert docstrings.run("plstm_linen", BRIEF) == []


def test_examples_run():
    assert docstrings.run_examples("plstm_linen", lambda: None) == []  # their random numbers have keys
