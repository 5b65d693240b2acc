"""The whole grid as masked attention, in one piece or in strips of columns of the image.

A mask has as many entries as the grid has nodes, squared. Made strip by strip from what is much smaller, it stays in
the cache, and the backward pass makes it again. The closed form of D-mode fuses with the scores instead.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from plstm_jax.ops._plstm_2d.directed import directed_mask, directed_strips
from plstm_jax.ops._plstm_2d.problem import Flips, Gates
from plstm_jax.ops._plstm_2d.separable import separable_factors, separable_mask
from plstm_jax.ops._plstm_2d.strips import Strip, arriving_states, strip_responses
from plstm_jax.ops.arrays import contract, masked_attention
from plstm_jax.ops.lines import diagonal

# Up to this many columns the mask of P-mode is made at once, as measured on CPU.
ONE_STRIP = 16

Vectors = tuple[Array, Array, Array]  # query [B, X, Y, DK, JQ], key [B, X, Y, DK, JK] and value [B, X, Y, DV, JV]


def parallel(vectors: Vectors, gates: Gates, direct: Array, flips: Flips) -> Array:
    """The op without border states.

    Args:
        vectors: query, key and value.
        gates: [B, O, X, Y, ...] in image coordinates.
        direct: [B, X, Y, JO, JQ, JK, JV].
        flips: which way each orientation walks.

    Returns:
        [B, X, Y, DV, JO], orientations summed.
    """
    x = direct.shape[1]
    if gates.is_scalar:
        scalars, own = gates.map(lambda gate: gate.reshape(gate.shape[:4])), direct[..., 0, 0, 0, 0]
        if gates.mode == "L":
            return attend_through(vectors, separable_mask(*separable_factors(scalars, own, flips)))
        if gates.mode == "P" and x <= ONE_STRIP:
            mask = directed_mask(scalars, flips) + diagonal(own.reshape(len(own), -1, 1, 1))[..., 0, :, 0]
            return attend_through(vectors, mask)
    width = _strip_width(x)
    more = -x % width

    def padded(array: Array, axis: int) -> Array:
        """Columns beyond the grid hold nothing, and nothing reaches them."""
        pads = [(0, 0)] * array.ndim
        pads[axis] = (0, more)
        return jnp.pad(array, pads) if more else array

    query, key, value = (padded(array, 1) for array in vectors)
    gates = gates.map(lambda gate: padded(gate, 2))
    return _in_strips((query, key, value), gates, padded(direct, 1), flips, width)[:, :x]


def attend_through(vectors: Vectors, mask: Array) -> Array:
    """Attention through the mask of scalar gates, [B, N, N] or [B, X, Y, X, Y], in one piece."""
    batch, x, y = vectors[0].shape[:3]
    query, key, value = (array.reshape(batch, x * y, *array.shape[3:]) for array in vectors)
    return masked_attention(query, key, value, mask.reshape(batch, x * y, 1, 1, x * y, 1, 1)).reshape(vectors[2].shape)


def _strip_width(x: int) -> int:
    """Columns of a strip: about as many states of strips as of columns within one, in whole strips if possible."""
    best = max(1, round((x / 2) ** 0.5))
    return next((width for width in (best, best + 1, best - 1, best + 2) if width > 0 and x % width == 0), best)


def _in_strips(vectors: Vectors, gates: Gates, direct: Array, flips: Flips, width: int) -> Array:
    """Any gates, `width` columns at a time: the states that arrive at a strip from either side, and its own inputs."""
    batch, x, y, jo, jq, jk, jv = direct.shape
    count = x // width
    rows, inputs = width * y * jo * jq, width * y * jk * jv

    def strips(array: Array, axis: int) -> Array:
        """[B, ..., X, Y, ...] to [S * B, ..., width, Y, ...]."""
        array = array.reshape(*array.shape[:axis], count, width, *array.shape[axis + 1 :])
        return jnp.moveaxis(array, axis, 1).reshape(batch * count, *array.shape[1:axis], *array.shape[axis + 1 :])

    def by_strip(array: Array) -> Array:
        """[B * S, ...] to [S, B, ...]."""
        return jnp.moveaxis(array.reshape(batch, count, *array.shape[1:]), 1, 0)

    gates = gates.map(lambda gate: strips(gate, 2))
    own = _direct_nodes(strips(direct, 1))
    arriving, reads = [], []
    for backward, strip in _strip_responses(gates, flips):
        own = own + strip.nodes
        read, write, carry = (by_strip(array) for array in strip[1:])
        arriving.append(arriving_states(write, carry, backward).reshape(count, batch, -1, count * inputs))
        reads.append(jnp.swapaxes(read, 2, 3).reshape(count, batch, rows, -1))

    queries, key, value = (array.reshape(batch, x * y, *array.shape[3:]) for array in vectors)

    def attend(_: None, strip: tuple[Array, list[Array], list[Array], Array, Array]) -> tuple[None, Array]:
        query, reads, arriving, own, place = strip
        # The orientations of a direction share the inner dimension of the product, which thereby sums them.
        first, *second = map(partial(contract, "...rs,...sc->...rc"), reads, arriving)
        mask = sum(second, start=first)
        # Nothing arrives from the strip itself, so its own columns are still zero.
        mask = lax.dynamic_update_slice_in_dim(mask, own, place, -1)
        return None, masked_attention(query, key, value, mask.reshape(batch, width * y, jo, jq, x * y, jk, jv))

    queries = jnp.moveaxis(queries.reshape(batch, count, width * y, *queries.shape[2:]), 1, 0)
    each = queries, reads, arriving, by_strip(own), inputs * jnp.arange(count)
    output = lax.scan(jax.checkpoint(attend, prevent_cse=False), None, each)[1]
    return jnp.moveaxis(output, 0, 1).reshape(batch, x, y, *output.shape[3:])


def _strip_responses(gates: Gates, flips: Flips) -> list[tuple[bool, Strip]]:
    """What strips [M, O, width, Y, ...] do, by the direction in which orientations walk them."""
    if gates.is_scalar and gates.mode == "P":
        return directed_strips(gates.map(lambda gate: gate.reshape(gate.shape[:4])), flips)
    return strip_responses(gates, flips)


def _direct_nodes(direct: Array) -> Array:
    """The direct term between the nodes of a strip: [M, width * Y * JO * JQ, width * Y * JK * JV]."""
    count, width, y, jo, jq, jk, jv = direct.shape
    spread = diagonal(direct.reshape(count, width * y, jo * jq, jk * jv))
    return spread.reshape(count, width * y * jo * jq, width * y * jk * jv)
