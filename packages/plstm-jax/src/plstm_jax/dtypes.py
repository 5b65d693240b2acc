"""Dtypes of configs, and where precision must not fall below float32."""

from __future__ import annotations

import warnings
from typing import Any

import jax.numpy as jnp
from jax import Array, dtypes

from plstm_jax.ops.arrays import common_dtype


def dtype_of(name: Any) -> jnp.dtype:
    """The dtype that a name stands for; float64 counts as float32 unless x64 is enabled.

    Args:
        name: a dtype name of a config, or a dtype.

    Returns:
        The dtype.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return jnp.dtype(dtypes.canonicalize_dtype(name))


def wide(dtype: Any) -> jnp.dtype:
    """The dtype for gates, states and statistics: float32 for anything narrower, else the dtype itself."""
    return common_dtype(dtype_of(dtype), jnp.float32)


def answer(output: Array, x: Array) -> Array:
    """What a layer or block computed, in the dtype of the input that it was asked with.

    Args:
        output: [...] of any floating dtype.
        x: the input [...]; where it is of integers, the output stays as it is.

    Returns:
        The output [...].
    """
    return output.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else output


def floating(x: Array, dtype: Any) -> Array:
    """An array of floating numbers as it is, one of integers in a dtype."""
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(dtype_of(dtype))


def residual(x: Array, dtype: Any) -> Array:
    """The input of a block as its residual connections add to it.

    Args:
        x: [...] of any floating dtype.
        dtype: in which the block computes.

    Returns:
        The input [...] in the wider of both dtypes: a wide stream through narrow blocks keeps its digits.
    """
    return x.astype(jnp.promote_types(x.dtype, dtype_of(dtype)))


def cast(array: Array | None, dtype: Any) -> Array | None:
    """An optional array in another dtype."""
    return None if array is None else array.astype(dtype_of(dtype))
