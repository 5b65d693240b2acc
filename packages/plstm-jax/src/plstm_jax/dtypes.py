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


def cast(array: Array | None, dtype: Any) -> Array | None:
    """An optional array in another dtype."""
    return None if array is None else array.astype(dtype_of(dtype))
