"""Shared fixtures of the JAX package's tests."""

import jax
import pytest

from plstm_jax.check import quick_compilation


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def no_silent_promotion(request):
    """Ops may not rely on what JAX promotes: callers may have switched it off. Formulas of layers switch it on."""
    if not {"ops", "functional"} & set(request.path.parts):
        yield
        return
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def jit():
    """`jax.jit` for programs that run once."""
    return lambda function: jax.jit(function, compiler_options=dict(quick_compilation()))
