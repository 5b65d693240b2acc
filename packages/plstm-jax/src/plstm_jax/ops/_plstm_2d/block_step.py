"""One block: what its nodes read from the states that enter it, and the states that leave it.

Read and write multiply a state, or what becomes one, by the products of all vectors and maps of the block:

    output = (Q map) state        state = (K map)^T V

Those products are as large as a state per node, so no pass keeps them. Both are formed in the order that the product
at hand reads fast, forward and backward, which the rules below are for.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from plstm_jax.ops._plstm_2d.block_maps import BorderMaps
from plstm_jax.ops._plstm_2d.separable import SeparableMaps
from plstm_jax.ops.arrays import contract

Vectors = tuple[Array, Array, Array]  # query [M, N, DK, JQ], key [M, N, DK, JK], value [M, N, JV, DV]
Step = tuple[Array, Array, Array]  # output [M, N, JO, DV], and what leaves to the right and below


def block_step(vectors: Vectors, maps: BorderMaps | SeparableMaps, left: Array, top: Array) -> Step:
    """Let the states left [M, BY * JT, DK, DV] and top [M, BX * JT, DK, DV] pass a block; M counts all copies."""
    if isinstance(maps, SeparableMaps):
        return _separable_step(vectors, maps, left, top)
    return _dense_step(vectors, maps, left, top)


def _dense_step(vectors: Vectors, maps: BorderMaps, left: Array, top: Array) -> Step:
    query, key, value = vectors
    output = _read(query, maps.read_left, left) + _read(query, maps.read_top, top)
    right = _mix(maps.right_of_left, left) + _mix(maps.right_of_top, top) + _write(key, maps.write_right, value)
    bottom = _mix(maps.bottom_of_left, left) + _mix(maps.bottom_of_top, top) + _write(key, maps.write_bottom, value)
    return output, right, bottom


def _separable_step(vectors: Vectors, maps: SeparableMaps, left: Array, top: Array) -> Step:
    """What comes from the left stays in its row; what leaves below comes from its own column."""
    query, key, value = vectors
    grid = maps.read_left.shape[1:]
    in_rows = query.reshape(len(query), *grid, query.shape[2]) * maps.read_left[..., None]
    rows = jnp.swapaxes(contract("...yxd,...yde->...yxe", jnp.swapaxes(in_rows, 1, 2), left), 1, 2)
    output = rows.reshape(value.shape) + _read(query, maps.read_top, top)
    right = maps.right_of_left[..., None, None] * left + _mix(maps.right_of_top, top)
    right = right + _write(key, maps.write_right, value)
    in_columns = key.reshape(len(key), *grid, key.shape[2]) * maps.write_bottom[..., None]
    columns = contract("...xyd,...xye->...xde", in_columns, value.reshape(len(value), *grid, value.shape[3]))
    return output, right, maps.bottom_of_top[..., None, None] * top + columns


def _mix(carry: Array, state: Array) -> Array:
    """[M, T, S] and [M, S, DK, DV] to [M, T, DK, DV]."""
    flat = contract("...ts,...sc->...tc", carry, state.reshape(*state.shape[:2], -1))
    return flat.reshape(*flat.shape[:2], *state.shape[2:])


@jax.custom_jvp
def _read(query: Array, weights: Array, state: Array) -> Array:
    """[M, N, DK, JQ], [M, N, JO, JQ, T] and [M, T, DK, DV] to [M, N, JO, DV]."""
    output = contract("...nk,...ke->...ne", _spread(query, weights), _flat(state))
    return output.reshape(*weights.shape[:3], state.shape[-1])


@_read.defjvp
def _read_tangent(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    (query, weights, state), (d_query, d_weights, d_state) = primals, tangents
    d_spread = _spread(d_query, weights) + _spread(query, d_weights)
    tangent = contract("...nk,...ke->...ne", d_spread, _flat(state))
    tangent = tangent + contract("...kn,...ke->...ne", _spread_transposed(query, weights), _flat(d_state))
    return _read(query, weights, state), tangent.reshape(*weights.shape[:3], state.shape[-1])


@jax.custom_jvp
def _write(key: Array, weights: Array, value: Array) -> Array:
    """[M, N, DK, JK], [M, N, JV, JK, T] and [M, N, JV, DV] to [M, T, DK, DV]."""
    return _state(contract("...kn,...ne->...ke", _spread_transposed(key, weights), _rows(value)), key)


@_write.defjvp
def _write_tangent(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    (key, weights, value), (d_key, d_weights, d_value) = primals, tangents
    d_spread = _spread(d_key, weights) + _spread(key, d_weights)
    tangent = contract("...nk,...ne->...ke", d_spread, _rows(value))
    tangent = tangent + contract("...nk,...ne->...ke", _spread(key, weights), _rows(d_value))
    return _write(key, weights, value), _state(tangent, key)


def _spread(vectors: Array, weights: Array) -> Array:
    """[M, N, D, J] and [M, N, I, J, T] to [M, N * I, T * D]."""
    copies, nodes, size, _ = vectors.shape
    _, _, heads, _, places = weights.shape
    if weights.shape[2:4] == (1, 1):  # without the axes of one element, which make sums over products slow
        spread = weights.reshape(copies, nodes, places, 1) * vectors.reshape(copies, nodes, 1, size)
    else:
        spread = contract("...ndj,...nijt->...nitd", vectors, weights)
    return spread.reshape(copies, nodes * heads, places * size)


def _spread_transposed(vectors: Array, weights: Array) -> Array:
    """`_spread` as [M, T * D, N * I]."""
    copies, nodes, size, _ = vectors.shape
    _, _, heads, _, places = weights.shape
    if weights.shape[2:4] == (1, 1):
        by_place = jnp.swapaxes(weights.reshape(copies, nodes, places), 1, 2)[:, :, None]
        spread = by_place * jnp.swapaxes(vectors.reshape(copies, nodes, size), 1, 2)[:, None]
    else:
        spread = contract("...ndj,...nijt->...tdni", vectors, weights)
    return spread.reshape(copies, places * size, nodes * heads)


def _flat(state: Array) -> Array:
    """[M, T, DK, DV] to [M, T * DK, DV]."""
    return state.reshape(state.shape[0], state.shape[1] * state.shape[2], state.shape[3])


def _state(flat: Array, key: Array) -> Array:
    """The inverse of `_flat`."""
    return flat.reshape(flat.shape[0], -1, key.shape[2], flat.shape[2])


def _rows(value: Array) -> Array:
    """[M, N, JV, DV] to [M, N * JV, DV]."""
    return value.reshape(value.shape[0], value.shape[1] * value.shape[2], value.shape[3])
