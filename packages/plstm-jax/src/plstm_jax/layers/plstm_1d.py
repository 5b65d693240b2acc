"""The pLSTM layer on sequences: parallel over time, or step by step; in one direction or in both at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from jax import Array

from plstm_config import pLSTM1DLayerConfig
from plstm_config.checks import check_cache, check_features
from plstm_jax.axes import merge_axes
from plstm_jax.context import Cache, Context
from plstm_jax.dtypes import dtype_of, wide
from plstm_jax.formulas import Result, Scope, register
from plstm_jax.layers.convolution import owner
from plstm_jax.layers.interaction import Parts, merge_heads
from plstm_jax.layers.norms import normalize_heads
from plstm_jax.ops import plstm_1d, plstm_1d_step

_GATES = {"source": "S", "transition": "T", "mark": "M", "direct": "D"}


def empty_cache(config: pLSTM1DLayerConfig, batch_size: int, dtype: Any = None) -> Cache:
    """The cache before the first step: no state and zeros in the convolution's window.

    Args:
        config: of the layer.
        batch_size: number of sequences.
        dtype: of the window, by default the config's; the state has the same, but at least float32.

    Returns:
        A new cache: `state` [B, H, DK, DV, JT] and, with a convolution, `window` [B, k - 1, D].
    """
    own = dtype_of(config.dtype)
    given = own if dtype is None else dtype_of(dtype)
    shape = (batch_size, config.num_heads, config.DK, config.DV, config.JT)
    cache: Cache = {"state": jnp.zeros(shape, wide(jnp.promote_types(given, own)))}
    if config.convolution is not None:
        width = config.convolution.kernel_size - 1
        cache["window"] = jnp.zeros((batch_size, width, config.input_dim), given)
    return cache


@register(pLSTM1DLayerConfig)
def plstm_1d_layer(config: pLSTM1DLayerConfig, scope: Scope, x: Array, context: Context) -> Result:
    """Multi-head pLSTM over a sequence, causal unless `bidirectional`.

    c = conv(x); each letter of `convolution_inputs` among S T M D Q K V P lets that part read c in place of x.
    out = outprojection(norm(plstm_1d(query, key, value, source, transition, mark, direct))) + passthrough.

    With the config's `bidirectional`, the sum over both directions stands in place of `plstm_1d`, in one call of it,
    with `direct` once. Source, transition and mark have 2 H heads, index 2 h + o; o = 1 runs from the end to the start.
    Such a layer has no cache and takes no steps; its convolution is centred.

    Args:
        config: complete config.
        scope: holds `conv`, `source`, `transition`, `mark`, `direct`, `query`, `key`, `value_`, `mhnorm`,
            `outprojection`, `passthrough`, those that the config switches on.
        x: [B, T, input_dim] of any floating dtype and any length T, or [B, input_dim] when stepping.
        context: cache as `empty_cache` makes it, for S packed sequences with B * S rows, row b * S + s for sequence s
            of row b; borders of packed sequences.

    Returns:
        [B, T, output_dim] in the dtype of x, [B, output_dim] when stepping, and the cache after the last input.

    Raises:
        ValueError: if x has another rank or number of features, the cache other entries or another batch size, or the
            borders are none of x.
    """
    check_features(x, "B D" if context.stepping else "B T D", config.input_dim)
    rows = x.shape[0] * (1 if context.cu_seqlens is None else len(context.cu_seqlens) - 1)
    cache = context.cache
    if cache is not None:
        check_cache(cache, ("state",) if config.convolution is None else ("state", "window"), rows)
    elif context.return_cache:
        cache = empty_cache(config, rows)
    convolved, new_cache = x, Cache()
    if config.convolution is not None:
        convolved, new_cache = scope.call("conv", x, replace(context, cache=cache))
    parts = Parts(config, scope, x, convolved)
    arguments = parts.query_key_value() | {name: parts.read(name, letter) for name, letter in _GATES.items()}
    if config.bidirectional:
        heads = _recur_both_ways(config, arguments, context.cu_seqlens)
        return parts.project(normalize_heads(scope, "mhnorm", config.mhnorm, merge_axes(heads, heads.ndim - 2, -1))), {}
    state = None if cache is None else cache["state"]
    heads, state = (_advance if context.stepping else _recur)(config, arguments, state, context)
    heads = normalize_heads(scope, "mhnorm", config.mhnorm, merge_axes(heads, heads.ndim - 2, -1))
    return parts.project(heads), {"state": state, **new_cache} if context.return_cache else {}


def _advance(config: Any, arguments: dict[str, Array], state: Array | None, context: Context) -> tuple[Array, Array]:
    """Heads' outputs [B, H, DV, JO] of one step, and the state after it."""
    if state is None:
        raise ValueError("cache: expected a cache as init_cache makes it, got None")
    heads, last = plstm_1d_step(**merge_heads(arguments, 0), state=merge_axes(state, 0, 1))
    lead = state.shape[:2]
    return heads.reshape(*lead, *heads.shape[1:]), last.reshape(*lead, *last.shape[1:])


def _recur(config: Any, arguments: dict[str, Array], state: Array | None, context: Context) -> tuple[Array, Array]:
    """Heads' outputs [B, H, T, DV, JO] and state [rows, H, DK, DV, JT], from a state of that shape or None."""
    lead, borders = (arguments["query"].shape[0], config.num_heads), context.cu_seqlens
    if state is not None and borders is not None:
        # The op holds the sequences of a head side by side, the cache the heads of a sequence.
        state = jnp.moveaxis(state.reshape(lead[0], len(borders) - 1, *state.shape[1:]), 2, 1)
    if state is not None:
        state = merge_axes(state, 0, 1)
    output, last = plstm_1d(
        **merge_heads(arguments, 1),
        initial_state=state,
        return_last_state=True,
        implementation=config.implementation,
        cu_seqlens=borders,
    )
    output = output.reshape(*lead, *output.shape[1:])
    last = last.reshape(*lead, *last.shape[1:])
    if borders is not None:
        last = jnp.moveaxis(last, 2, 1)
        last = merge_axes(last, 0, 1)
    return output, last


def _recur_both_ways(config: Any, arguments: dict[str, Array], borders: Any) -> Array:
    """Heads' outputs [B, H, T, DV, JO], summed over both directions, from one call of the op with 2 B H rows."""
    batch, length = arguments["query"].shape[:2]
    mirrored = None if borders is None else _mirrored(borders, length)

    def rows(name: str, array: Array) -> Array:
        """From [B * H, T, ...], gates [B * H * 2, T, ...], to [B * H * 2, T, ...], the second of two reversed."""
        if name in ("source", "transition", "mark"):
            array = array.reshape(batch * config.num_heads, 2, *array.shape[1:])
            forward, backward = array[:, 0], array[:, 1]
        else:
            forward, backward = array, jnp.zeros_like(array) if name == "direct" else array
        return merge_axes(jnp.stack([forward, _reverse(backward, mirrored)], axis=1), 0, 1)

    stacked: dict[str, Any] = {name: rows(name, array) for name, array in merge_heads(arguments, 1).items()}
    output: Any = plstm_1d(**stacked, implementation=config.implementation, cu_seqlens=borders)
    output = output.astype(wide(output.dtype)).reshape(batch, config.num_heads, 2, *output.shape[1:])
    turned = _reverse(merge_axes(output[:, :, 1], 0, 1), mirrored)
    return output[:, :, 0] + turned.reshape(batch, config.num_heads, *turned.shape[1:])


def _mirrored(cu_seqlens: Any, length: int) -> Array:
    """The place [T] that each place of packed sequences has when every one of them is read from its end."""
    borders, number = jnp.asarray(cu_seqlens), owner(cu_seqlens, length)
    return borders[:-1][number] + borders[1:][number] - 1 - jnp.arange(length)


def _reverse(array: Array, mirrored: Array | None) -> Array:
    """Sequences [B, T, ...] from their ends to their starts; its own inverse."""
    return jnp.flip(array, axis=1) if mirrored is None else array[:, mirrored]
