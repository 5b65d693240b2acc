"""Shared fixtures of the nnx package's tests."""

import jax
import pytest

from plstm_jax.check import quick_compilation


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def jit():
    """`jax.jit` for programs that run once."""
    return lambda function: jax.jit(function, compiler_options=dict(quick_compilation()))
