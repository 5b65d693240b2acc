"""Normalisation over the features, or over the features of each head."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from plstm_config import (
    IdentityConfig,
    LayerNormConfig,
    MultiHeadLayerNormConfig,
    MultiHeadRMSNormConfig,
    RMSNormConfig,
)
from plstm_config.checks import check_features, check_heads
from plstm_config.norms import MultiHeadNormLayerConfig, NormLayerConfig
from plstm_jax.axes import merge_axes
from plstm_jax.dtypes import cast, dtype_of, wide
from plstm_jax.formulas import Scope, register_map
from plstm_jax.functional import layer_norm, multi_head_norm, rms_norm

_NORMS = {RMSNormConfig: rms_norm, LayerNormConfig: layer_norm}
_KINDS = {MultiHeadRMSNormConfig: "rms", MultiHeadLayerNormConfig: "layer"}


def _prepare(config: NormLayerConfig, scope: Scope, x: Array) -> tuple[Array, Array | None, Array | None]:
    """Input, scale and bias in float32 or higher."""
    work = jnp.promote_types(wide(x.dtype), dtype_of(config.dtype))
    return x.astype(work), cast(scope.get("scale"), work), cast(scope.get("bias"), work)


@register_map(RMSNormConfig, LayerNormConfig)
def feature_norm(config: NormLayerConfig, scope: Scope, x: Array) -> Array:
    """Normalise the last axis: RMS or layer norm, then scale and bias.

    Args:
        config: kind, size, eps and dtype.
        scope: holds `scale`, `bias` [D], each if the config's flag of that name is set.
        x: [..., input_dim] of any floating dtype.

    Returns:
        The shape of x in the config's dtype.

    Raises:
        ValueError: if the last axis of x has another size.
    """
    check_features(x, "... D", config.input_dim)
    return _NORMS[type(config)](*_prepare(config, scope, x), config.eps).astype(dtype_of(config.dtype))


@register_map(MultiHeadRMSNormConfig, MultiHeadLayerNormConfig)
def head_norm(config: MultiHeadNormLayerConfig, scope: Scope, x: Array) -> Array:
    """Normalise the features of each head.

    Args:
        config: kind, sizes, axis of the heads, eps and dtype.
        scope: holds `scale`, `bias` [H, D / H], each if the config's flag of that name is set.
        x: heads on the config's `axis` and D / H features on the last axis; or [..., D] for axis None.

    Returns:
        The shape of x in the config's dtype.

    Raises:
        ValueError: if x has other sizes on these axes.
    """
    axis, heads = config.axis, config.num_heads
    if axis is None:
        check_features(x, "... D", config.input_dim)
    else:
        check_heads(x, heads, axis)
        check_features(x, "... D", config.input_dim // heads)
    values, scale, bias = _prepare(config, scope, x)
    kind = _KINDS[type(config)]
    out = multi_head_norm(values, scale, bias, kind=kind, axis=axis, num_heads=heads, eps=config.eps)
    return out.astype(dtype_of(config.dtype))


@register_map(IdentityConfig)
def identity(config: IdentityConfig, scope: Scope, x: Array) -> Array:
    """No normalisation at all.

    Args:
        config: says all that there is to say.
        scope: holds nothing.
        x: any shape.

    Returns:
        An array of the shape and dtype of x.
    """
    return x


def normalize_heads(scope: Scope, name: str, config: Any, heads: Array) -> Array:
    """Apply a norm of any kind to the heads' outputs.

    Args:
        scope: of the layer.
        name: of its norm.
        config: of its norm: a multi-head norm with the heads on axis 1, or a norm over all heads' features together.
        heads: [B, H, ..., W].

    Returns:
        The normalised outputs in the same shape.
    """
    over_all_heads = getattr(config, "axis", None) is None and getattr(config, "input_dim", None) is not None
    if not over_all_heads:
        return scope.map(name, heads)
    last = jnp.moveaxis(heads, 1, -2)
    features = scope.map(name, merge_axes(last, last.ndim - 2, -1))
    return jnp.moveaxis(features.reshape(last.shape), -2, 1)
