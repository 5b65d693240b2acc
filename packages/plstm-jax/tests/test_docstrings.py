"""Docstrings: one dialect, and examples that run."""

from plstm_testing.conformance import docstrings

# Methods that fill in what the suite's adapter asks for, and are described there.
BRIEF = {"conformance.py": "plstm_testing.conformance.Adapter describes what is asked for"}


def test_dialect():
    assert docstrings.run("plstm_jax", BRIEF) == []


def test_examples_run():
    assert docstrings.run_examples("plstm_jax", lambda: None) == []  # their random numbers have keys


def test_everything_public_has_an_example():
    modules = ["plstm_jax", "plstm_jax.ops", "plstm_jax.functional"]
    assert docstrings.without_example("plstm_jax", modules, {}) == []
