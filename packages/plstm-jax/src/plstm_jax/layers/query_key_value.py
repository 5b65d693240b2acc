"""Query, Key and Value: linear maps of the node features, per head."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from plstm_config import KeyLayerConfig, QueryLayerConfig, ValueLayerConfig
from plstm_config.checks import check_features
from plstm_config.query_key_value import ProjectionLayerConfig
from plstm_jax import functional
from plstm_jax.dtypes import cast, dtype_of
from plstm_jax.formulas import Scope, register_map


@register_map(QueryLayerConfig, KeyLayerConfig, ValueLayerConfig)
def head_linear(config: ProjectionLayerConfig, scope: Scope, x: Array) -> Array:
    """Map node features to heads, in the config's dtype.

    Args:
        config: sizes, normalisation and dtype.
        scope: holds `weight` [max(1, H/s), K / max(1, s/H), J, s, D / s] and, with `bias`, `bias` [H, K, J].
        x: [..., input_dim] of any floating dtype.

    Returns:
        [..., H, K, J], with DK or DV as K.

    Raises:
        ValueError: if the last axis of x has another size.
    """
    check_features(x, "... D", config.input_dim)
    work = dtype_of(config.dtype)
    bias = cast(scope.get("bias"), work)
    if bias is None:
        bias = jnp.zeros((config.num_heads, *config.head_sizes), work)
    return functional.projection(x.astype(work), scope.need("weight").astype(work), bias, config.normalization)
