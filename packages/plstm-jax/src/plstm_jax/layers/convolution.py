"""Depthwise convolutions over sequences and grids.

A kernel has few positions, and every channel one of its own: the sum over them of the shifted input, in float32 or
higher, is what compilers fuse best, forward and backward.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import jax.numpy as jnp
from jax import Array

from plstm_config import Convolution1DLayerConfig, Convolution2DLayerConfig
from plstm_config.checks import check_features
from plstm_jax.context import Context
from plstm_jax.dtypes import dtype_of, wide
from plstm_jax.formulas import Result, Scope, register, register_map


@register(Convolution1DLayerConfig)
def convolution_1d(config: Convolution1DLayerConfig, scope: Scope, x: Array, context: Context) -> Result:
    """Depthwise convolution over time: out[t] = b + sum_j w[j] x[t - k + 1 + j].

    Without the config's `causal` it is centred: (k - 1) // 2 stands in place of k - 1, and there is no cache.

    Args:
        config: kernel size, width and dtype.
        scope: holds `_conv.weight` [D, 1, k] and, with `bias`, `_conv.bias` [D].
        x: [B, T, input_dim] of any floating dtype, or [B, input_dim] when stepping.
        context: its cache is {"window": [B, k - 1, D]}, the inputs before x; for S packed sequences [B * S, k - 1, D],
            row b * S + s for sequence s of row b. None: zeros. Sequences packed along T do not see each other.

    Returns:
        Output of the shape of x in the config's dtype, and the cache after the last input: its window has the dtype of
        the one before.

    Raises:
        ValueError: if x has another rank or number of features.
    """
    check_features(x, "B D" if context.stepping else "B T D", config.input_dim)
    work = dtype_of(config.dtype)
    inputs = (x[:, None] if context.stepping else x).astype(work)
    if not config.causal:
        return _centred(config, scope, inputs, context.cu_seqlens), {}
    rows = x.shape[0] * (1 if context.cu_seqlens is None else len(context.cu_seqlens) - 1)
    if context.cache is None:
        window = jnp.zeros((rows, config.kernel_size - 1, config.input_dim), work)
    else:
        window = context.cache["window"]
    if context.cu_seqlens is None:
        extended = jnp.concatenate([window.astype(work), inputs], axis=1)
        output, after = _convolve(config, scope, extended), extended[:, inputs.shape[1] :]
    else:
        output, after = _packed(config, scope, inputs, window.astype(work), context.cu_seqlens)
    return (output[:, 0] if context.stepping else output), {"window": after.astype(window.dtype)}


def _convolve(config: Any, scope: Scope, x: Array) -> Array:
    """Convolve [B, k - 1 + T, D] to [B, T, D]."""
    length = x.shape[1] - config.kernel_size + 1
    kernel = scope.need("_conv.weight")[:, 0]
    shifted = [(x[:, shift : shift + length], kernel[:, shift]) for shift in range(config.kernel_size)]
    return _weighted_sum(shifted, scope.get("_conv.bias"), dtype_of(config.dtype))


def _weighted_sum(shifted: list[tuple[Array, Array]], bias: Array | None, dtype: jnp.dtype) -> Array:
    """The sum of shifted inputs [..., D], each times the weights [D] of its position, and the bias [D]."""
    work = wide(dtype)
    total = sum(x.astype(work) * weight.astype(dtype).astype(work) for x, weight in shifted)
    if bias is not None:
        total = total + bias.astype(dtype).astype(work)
    return jnp.asarray(total, dtype)


def _centred(config: Any, scope: Scope, x: Array, cu_seqlens: Any) -> Array:
    """Convolve [B, T, D] with zeros on both sides of every sequence."""
    before, after = _padding(config.kernel_size, causal=False)
    if cu_seqlens is None:
        return _convolve(config, scope, jnp.pad(x, [(0, 0), (before, after), (0, 0)]))
    # k - 1 zeros in front of every sequence, and the rest of a kernel behind the last one
    (batch, length, dim), width = x.shape, config.kernel_size - 1
    places = jnp.arange(length) + (owner(cu_seqlens, length) + 1) * width
    extended = jnp.zeros((batch, length + (len(cu_seqlens) - 1) * width + after, dim), x.dtype).at[:, places].set(x)
    return _convolve(config, scope, extended)[:, places - before]


def owner(cu_seqlens: Any, length: int) -> Array:
    """The number [T] of the packed sequence that each position belongs to.

    Args:
        cu_seqlens: borders [S + 1] from 0 to `length`.
        length: number of positions T.

    Returns:
        Indices into the S sequences.
    """
    return jnp.searchsorted(jnp.asarray(cu_seqlens)[1:], jnp.arange(length), side="right")


def _packed(config: Any, scope: Scope, x: Array, window: Array, cu_seqlens: Any) -> tuple[Array, Array]:
    # Each window goes in front of its sequence; the outputs inside of the windows, which mix neighbours, are left out
    # again.
    borders = jnp.asarray(cu_seqlens)
    batch, length, dim = x.shape
    count, width = borders.shape[0] - 1, config.kernel_size - 1
    places = jnp.arange(length) + (owner(borders, length) + 1) * width
    offsets = jnp.arange(count)[:, None] * width + jnp.arange(width)
    starts, ends = ((edge[:, None] + offsets).reshape(-1) for edge in (borders[:-1], borders[1:]))
    extended = jnp.zeros((batch, length + count * width, dim), x.dtype).at[:, places].set(x)
    extended = extended.at[:, starts].set(window.reshape(batch, count * width, dim))
    after = extended[:, ends].reshape(batch * count, width, dim)
    return _convolve(config, scope, extended)[:, places - width], after


def _padding(kernel_size: int, causal: bool) -> tuple[int, int]:
    """Zeros before and after an axis: all before where causal, else as centred as the size allows."""
    before = kernel_size - 1 if causal else (kernel_size - 1) // 2
    return before, kernel_size - 1 - before


@register_map(Convolution2DLayerConfig)
def convolution_2d(config: Convolution2DLayerConfig, scope: Scope, x: Array) -> Array:
    """Depthwise convolution over a grid, centred, or seeing only x' <= x and y' <= y if the config's `causal` is set.

    Args:
        config: kernel size, width and dtype.
        scope: holds `_conv.weight` [D, 1, kx, ky] and, with `bias`, `_conv.bias` [D].
        x: [B, X, Y, input_dim] of any floating dtype.

    Returns:
        The shape of x in the config's dtype.

    Raises:
        ValueError: if x has another rank or number of features.
    """
    check_features(x, "B X Y D", config.input_dim)
    work = dtype_of(config.dtype)
    padding = [_padding(size, config.causal) for size in config.kernel_size]
    padded = jnp.pad(x.astype(work), [(0, 0), *padding, (0, 0)])
    (_, side_x, side_y, _), (size_x, size_y) = x.shape, config.kernel_size
    kernel = scope.need("_conv.weight")[:, 0]
    shifted = [
        (padded[:, i : i + side_x, j : j + side_y], kernel[:, i, j]) for i, j in product(range(size_x), range(size_y))
    ]
    return _weighted_sum(shifted, scope.get("_conv.bias"), work)
