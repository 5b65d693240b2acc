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
from plstm_jax.dtypes import dtype_of, wide

Shape = Sequence[int]


def _axes(axes: int | Sequence[int], rank: int) -> list[int]:
    given = [axes] if isinstance(axes, int) else list(axes)
    for axis in given:
        if not -rank <= axis < rank:
            raise ValueError(f"axis must lie in [-{rank}, {rank}) for an array of rank {rank}, got {axis}")
    return [axis % rank for axis in given]


def _size(shape: Shape, axis: int) -> int:
    return shape[_axes(axis, len(shape))[0]]


def _spaced(key: Array, shape: Shape, dtype: Any, config: LinspaceInitConfig | LogspaceInitConfig) -> Array:
    """Spaced values along one axis, repeated over the others."""
    values = jnp.linspace(config.low, config.high, _size(shape, config.axis), dtype=dtype)
    if isinstance(config, LogspaceInitConfig):
        values = jnp.asarray(config.base, dtype) ** values
    laid = [1] * len(shape)
    laid[config.axis] = -1
    return jnp.broadcast_to(values.reshape(laid), shape)


def _normal(stddev: Callable[[Shape, Any], float]) -> Callable[[Array, Shape, Any, Any], Array]:
    def draw(key: Array, shape: Shape, dtype: Any, config: Any) -> Array:
        return jax.random.normal(key, shape, dtype) * stddev(shape, config) + getattr(config, "mean", 0.0)

    return draw


def _uniform(key: Array, shape: Shape, dtype: Any, config: UniformInitConfig) -> Array:
    return jax.random.uniform(key, shape, dtype, config.low, config.high)


def _truncated_normal(key: Array, shape: Shape, dtype: Any, config: TruncatedNormalInitConfig) -> Array:
    if config.stddev == 0.0:
        return jnp.full(shape, min(max(config.mean, config.lower), config.upper), dtype)
    low, high = ((bound - config.mean) / config.stddev for bound in (config.lower, config.upper))
    # Float32 resolves the lower tail only, so an interval in the upper half is mirrored.
    sign = -1.0 if low + high > 0.0 else 1.0
    first, last = sorted((sign * low, sign * high))
    first_share, last_share = (0.5 * math.erfc(-bound / math.sqrt(2.0)) for bound in (first, last))
    share = first_share + (last_share - first_share) * jax.random.uniform(key, shape, dtype)
    return jnp.clip(jax.scipy.special.ndtri(share), first, last) * (sign * config.stddev) + config.mean


def _diagonal(key: Array, shape: Shape, dtype: Any, config: DiagonalInitConfig) -> Array:
    rank = len(shape)
    in_axes, out_axes = _axes(config.in_axes, rank), _axes(config.out_axes, rank)
    if set(in_axes) & set(out_axes):
        raise ValueError(f"out_axes must differ from in_axes={config.in_axes}, got {config.out_axes}")
    in_size, out_size = (math.prod(shape[axis] for axis in axes) for axes in (in_axes, out_axes))
    period = max(min(in_size, out_size), 1)
    rows, columns = jnp.arange(in_size) % period, jnp.arange(out_size) % period
    matrix = (rows[:, None] == columns).astype(dtype) * config.value
    # The axes in the order other, in, out: there the matrix broadcasts over the leading ones.
    others = [axis for axis in range(rank) if axis not in {*in_axes, *out_axes}]
    order = others + in_axes + out_axes
    block = matrix.reshape([shape[axis] for axis in in_axes + out_axes])
    ordered = jnp.broadcast_to(block, [shape[axis] for axis in order])
    return ordered.transpose([order.index(axis) for axis in range(rank)])


def _xavier_stddev(shape: Shape, config: XavierInitConfig) -> float:
    fans = _size(shape, config.in_axis) + _size(shape, config.out_axis)
    return config.mup_init_scale * math.sqrt(2.0 / fans)


_INITIALIZERS: dict[type, Callable[[Array, Shape, Any, Any], Array]] = {
    ConstantInitConfig: lambda key, shape, dtype, config: jnp.full(shape, config.value, dtype),
    ZerosInitConfig: lambda key, shape, dtype, config: jnp.zeros(shape, dtype),
    OnesInitConfig: lambda key, shape, dtype, config: jnp.ones(shape, dtype),
    LinspaceInitConfig: _spaced,
    LogspaceInitConfig: _spaced,
    NormalInitConfig: _normal(lambda shape, config: config.stddev),
    UniformInitConfig: _uniform,
    TruncatedNormalInitConfig: _truncated_normal,
    DiagonalInitConfig: _diagonal,
    WangInitConfig: _normal(
        lambda shape, config: 2.0 * config.mup_init_scale / math.sqrt(_size(shape, config.axis)) / config.num_blocks
    ),
    XavierInitConfig: _normal(_xavier_stddev),
    SmallInitConfig: _normal(lambda shape, config: config.mup_init_scale / math.sqrt(2.5 * _size(shape, config.axis))),
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
    initializer = _INITIALIZERS.get(type(config))
    if initializer is None:
        known = ", ".join(sorted(config_class.__name__ for config_class in _INITIALIZERS))
        raise TypeError(f"config must be an instance of one of {known}, got {type(config).__name__}")
    if math.prod(shape) == 0:
        return jnp.zeros(shape, dtype_of(dtype))
    return initializer(key, tuple(shape), wide(dtype), config).astype(dtype_of(dtype))
