"""The linear layer of all other layers and blocks."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from plstm_config import LinearConfig
from plstm_config.checks import check_features
from plstm_jax.dtypes import dtype_of
from plstm_jax.formulas import Scope, register_map


@register_map(LinearConfig)
def linear(config: LinearConfig, scope: Scope, x: Array) -> Array:
    """The map W x + b on the last axis, in the config's dtype.

    Args:
        config: sizes and dtype.
        scope: holds `weight` [output_dim, input_dim] and, with `bias`, `bias` [output_dim].
        x: [..., input_dim] of any floating dtype.

    Returns:
        [..., output_dim].

    Raises:
        ValueError: if the last axis of x has another size.
    """
    check_features(x, "... D", config.input_dim)
    return affine(x, scope.need("weight"), scope.get("bias"), config.dtype)


def affine(x: Array, weight: Array, bias: Array | None, dtype: object) -> Array:
    """W x + b with all three in one dtype.

    Args:
        x: [..., D].
        weight: [F, D].
        bias: [F] or None.
        dtype: to compute in.

    Returns:
        [..., F].
    """
    work = dtype_of(dtype)
    result = jnp.einsum("...d,fd->...f", x.astype(work), weight.astype(work))
    return result if bias is None else result + bias.astype(work)
