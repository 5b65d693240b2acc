"""How parameters start: one function for all initialiser configs.

Axes and fans refer to the canonical layout that all backends share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from plstm_config import (
    ConstantInitConfig,
    DiagonalInitConfig,
    LinspaceInitConfig,
    LogspaceInitConfig,
    NormalInitConfig,
    OnesInitConfig,
    SmallInitConfig,
    TruncatedNormalInitConfig,
    UniformInitConfig,
    WangInitConfig,
    XavierInitConfig,
    ZerosInitConfig,
)
from plstm_config.initializers import axes_of
from plstm_config.options import of_instance
from plstm_jax.dtypes import dtype_of, wide

Shape = Sequence[int]


def _spaced(key: Array, shape: Shape, dtype: Any, config: LinspaceInitConfig | LogspaceInitConfig) -> Array:
    """Spaced values along one axis, repeated over the others."""
    values = jnp.linspace(config.low, config.high, shape[axes_of(config.axis, len(shape))[0]], dtype=dtype)
    if isinstance(config, LogspaceInitConfig):
        values = jnp.asarray(config.base, dtype) ** values
    laid = [1] * len(shape)
    laid[config.axis] = -1
    return jnp.broadcast_to(values.reshape(laid), shape)


def _normal(key: Array, shape: Shape, dtype: Any, config: NormalInitConfig) -> Array:
    return jax.random.normal(key, shape, dtype) * config.stddev + config.mean


def _scaled_normal(
    key: Array, shape: Shape, dtype: Any, config: WangInitConfig | XavierInitConfig | SmallInitConfig
) -> Array:
    return jax.random.normal(key, shape, dtype) * config.spread(shape)


def _uniform(key: Array, shape: Shape, dtype: Any, config: UniformInitConfig) -> Array:
    return jax.random.uniform(key, shape, dtype, config.low, config.high)


def _truncated_normal(key: Array, shape: Shape, dtype: Any, config: TruncatedNormalInitConfig) -> Array:
    if config.stddev == 0.0:
        return jnp.full(shape, min(max(config.mean, config.lower), config.upper), dtype)
    sign, first, last, first_share, last_share = config.tail()
    share = first_share + (last_share - first_share) * jax.random.uniform(key, shape, dtype)
    return jnp.clip(jax.scipy.special.ndtri(share), first, last) * (sign * config.stddev) + config.mean


def _diagonal(key: Array, shape: Shape, dtype: Any, config: DiagonalInitConfig) -> Array:
    return jnp.asarray(config.array(shape), dtype)


_INITIALIZERS: dict[type, Callable[[Array, Shape, Any, Any], Array]] = {
    ConstantInitConfig: lambda key, shape, dtype, config: jnp.full(shape, config.value, dtype),
    ZerosInitConfig: lambda key, shape, dtype, config: jnp.zeros(shape, dtype),
    OnesInitConfig: lambda key, shape, dtype, config: jnp.ones(shape, dtype),
    LinspaceInitConfig: _spaced,
    LogspaceInitConfig: _spaced,
    NormalInitConfig: _normal,
    UniformInitConfig: _uniform,
    TruncatedNormalInitConfig: _truncated_normal,
    DiagonalInitConfig: _diagonal,
    WangInitConfig: _scaled_normal,
    XavierInitConfig: _scaled_normal,
    SmallInitConfig: _scaled_normal,
}


def draw(config: object, key: Array, shape: Shape, dtype: Any = "float32") -> Array:
    """Draw an array as an initialiser config says.

    * constant, zeros, ones: one value everywhere.
    * linspace, logspace: `low..high` (or `base ** low..high`) along `axis`, repeated over the other axes.
    * uniform: between `low` and `high`. Normal: `mean + stddev z`. Truncated normal: the same distribution,
      conditioned on values between `lower` and `upper`.
    * diagonal: the identity of the smaller of the in and the out size, tiled to in x out, times `value`, repeated over
      the axes that are neither.
    * Wang: normal with std `2 mup / sqrt(fan) / num_blocks`. Xavier: `mup sqrt(2 / (fan_in + fan_out))`. Small:
      `mup / sqrt(2.5 fan)`. A fan is the size along the named axis.

    Args:
        config: one of the initialiser configs of `plstm_config`.
        key: for random numbers; they are drawn in at least float32.
        shape: of the result.
        dtype: of the result.

    Returns:
        The array.

    Raises:
        TypeError: if the config is no initialiser config; the message lists those that are.
        ValueError: if the config names an axis that the shape does not have.
    """
    initializer = of_instance("config", config, _INITIALIZERS)
    if math.prod(shape) == 0:
        return jnp.zeros(shape, dtype_of(dtype))
    return initializer(key, tuple(shape), wide(dtype), config).astype(dtype_of(dtype))
