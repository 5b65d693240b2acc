"""Layers that act on each number by itself: scales, drop path, scalar functions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from plstm_config import (
    DropPathConfig,
    ExpExpFunctionConfig,
    PassthroughLayerConfig,
    ScaleLayerConfig,
    SigmoidFunctionConfig,
    SoftCapFunctionConfig,
    TanhFunctionConfig,
)
from plstm_config.checks import check_features
from plstm_config.pointwise import FeatureScaleConfig
from plstm_jax.context import Context
from plstm_jax.dtypes import dtype_of
from plstm_jax.formulas import Result, Scope, register, register_map
from plstm_jax.functional import eigenvalue_activation, soft_cap


@register_map(PassthroughLayerConfig, ScaleLayerConfig)
def feature_scale(config: FeatureScaleConfig, scope: Scope, x: Array) -> Array:
    """Multiply every feature by its scale.

    Args:
        config: size and dtype.
        scope: holds `scale` [D].
        x: [..., input_dim] of any floating dtype.

    Returns:
        The shape of x in the config's dtype.

    Raises:
        ValueError: if the last axis of x has another size.
    """
    check_features(x, "... D", config.input_dim)
    work = dtype_of(config.dtype)
    return x.astype(work) * scope.need("scale").astype(work)


@register(DropPathConfig)
def drop_path(config: DropPathConfig, scope: Scope, x: Array, context: Context) -> Result:
    """Stochastic depth: in training, a sample's branch is zero with probability drop_prob.

    With `scale_by_keep` the branches that stay are divided by 1 - drop_prob, so that the mean is kept. A graph is one
    sample, all of its nodes are kept or dropped together.

    Args:
        config: the probability.
        scope: gives the key.
        x: a branch's output; samples, or nodes, on the first axis.
        context: tells whether this is training, and which nodes form a graph.

    Returns:
        The shape and dtype of x.

    Raises:
        ValueError: if there is no key in training.
    """
    if not context.training or config.drop_prob == 0.0:
        return x, {}
    key = scope.key()
    if key is None:
        raise ValueError("key: expected a PRNG key, since paths are dropped in training, got None")
    keep_prob = 1.0 - config.drop_prob
    kept = jax.random.bernoulli(key, keep_prob, x.shape[:1] + (1,) * (x.ndim - 1))
    if context.graph is not None:
        kept = kept[context.graph.first_node]
    divisor = keep_prob if config.scale_by_keep else 1.0
    return jnp.where(kept, x / divisor, jnp.zeros_like(x)), {}


@register_map(TanhFunctionConfig)
def tanh_function(config: TanhFunctionConfig, scope: Scope, x: Array) -> Array:
    """tanh(x).

    Args:
        config: says all that there is to say.
        scope: holds nothing.
        x: any shape.

    Returns:
        An array of the shape and dtype of x.
    """
    return jnp.tanh(x)


@register_map(SigmoidFunctionConfig)
def sigmoid_function(config: SigmoidFunctionConfig, scope: Scope, x: Array) -> Array:
    """1 / (1 + exp(-x)).

    Args:
        config: says all that there is to say.
        scope: holds nothing.
        x: any shape.

    Returns:
        An array of the shape and dtype of x.
    """
    return jax.nn.sigmoid(x)


@register_map(ExpExpFunctionConfig)
def exp_exp_function(config: ExpExpFunctionConfig, scope: Scope, x: Array) -> Array:
    """exp(-c exp(-x)) with the config's scale c.

    Args:
        config: says all that there is to say.
        scope: holds nothing.
        x: any shape.

    Returns:
        An array of the shape and dtype of x.
    """
    return eigenvalue_activation(x, "expexp", config.scale)


@register_map(SoftCapFunctionConfig)
def soft_cap_function(config: SoftCapFunctionConfig, scope: Scope, x: Array) -> Array:
    """The function c tanh(x / c) with the config's scale c: near the identity for small x, never beyond c.

    Args:
        config: says all that there is to say.
        scope: holds nothing.
        x: any shape.

    Returns:
        An array of the shape and dtype of x.
    """
    return soft_cap(x, config.scale)
