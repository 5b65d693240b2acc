"""The recurrence itself, one antidiagonal of the grid per step: any gates, any J dimensions."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from plstm_jax.ops._plstm_1d.problem import move_state, read_state, skip, write_state
from plstm_jax.ops._plstm_2d.problem import Gates, Problem, Result, copies, flip_each, sum_orientations


class _Diagonal(NamedTuple):
    """The nodes (x, s - x) of antidiagonal s, [B, O, X, ...]; places off the grid hold zeros."""

    query: Array
    key: Array
    value: Array
    gates: Gates


def recurrent(problem: Problem) -> Result:
    """Scan over the antidiagonals, all nodes of one and all orientations in one step; X and Y at least 1."""
    flips = problem.flips
    x, y = problem.query.shape[1:3]
    skip_output = skip(problem.query, problem.key, problem.value, problem.direct)
    query, key, value = (_skew(copies(array, flips)) for array in (problem.query, problem.key, problem.value))
    nodes = _Diagonal(query, key, value, problem.gates.map(lambda gate: _skew(flip_each(gate, flips, 2, 3))))
    left, top = flip_each(problem.left, flips, None, 2), flip_each(problem.top, flips, 2, None)
    steps = x + y - 1
    entering = jnp.pad(jnp.moveaxis(left, 2, 0), [(0, steps - y), *((0, 0),) * (left.ndim - 1)])
    column = jnp.arange(x)[:, None, None, None]

    def step(
        states: tuple[Array, Array], inputs: tuple[_Diagonal, Array, Array]
    ) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
        now, left_now, s = inputs
        r, d = states
        r = jnp.concatenate([left_now[:, :, None], r[:, :, :-1]], 2)
        d = jnp.where(column == s, top, d)
        output = read_state(now.query, now.gates.mark_l, r) + read_state(now.query, now.gates.upper_mark, d)
        r_out, d_out = _hand_on(now, r, d)
        bottom = lax.dynamic_index_in_dim(d_out, jnp.maximum(s - y + 1, 0), 2, keepdims=False)
        return (r_out, d_out), (output, r_out[:, :, -1], bottom)

    start = (jnp.zeros_like(top), jnp.zeros_like(top))
    _, (outputs, rights, bottoms) = lax.scan(step, start, (nodes, entering, jnp.arange(steps)))
    output = sum_orientations(flip_each(_unskew(outputs, y), flips, 2, 3), 1) + skip_output
    right = flip_each(jnp.moveaxis(rights[x - 1 :], 0, 2), flips, None, 2)
    bottom = flip_each(jnp.moveaxis(bottoms[y - 1 :], 0, 2), flips, 2, None)
    return Result(output, right, bottom)


def _hand_on(now: _Diagonal, r: Array, d: Array) -> tuple[Array, Array]:
    gates = now.gates.with_turns()
    r_out = move_state(gates.transition_rl, r) + write_state(now.key, now.value, gates.source_r)
    d_out = move_state(gates.transition_du, d) + write_state(now.key, now.value, gates.source_d)
    if gates.transition_ru is not None:
        r_out = r_out + move_state(gates.transition_ru, d)
    if gates.transition_dl is not None:
        d_out = d_out + move_state(gates.transition_dl, r)
    return r_out, d_out


def _skew(array: Array) -> Array:
    """[B, O, X, Y, ...] to antidiagonals [X + Y - 1, B, O, X, ...].

    Padding each row by X and cutting it one short moves every row one place further than the one before.
    """
    x, y = array.shape[2:4]
    padded = jnp.pad(array, [(0, 0), (0, 0), (0, 0), (0, x), *((0, 0),) * (array.ndim - 4)])
    flat = padded.reshape(*array.shape[:2], x * (y + x), *array.shape[4:])[:, :, : x * (x + y - 1)]
    return jnp.moveaxis(flat.reshape(*array.shape[:2], x, x + y - 1, *array.shape[4:]), 3, 0)


def _unskew(diagonals: Array, y: int) -> Array:
    """The inverse of `_skew`: [B, O, X, Y, ...]."""
    array = jnp.moveaxis(diagonals, 0, 3)
    lead, x, trail = array.shape[:2], array.shape[2], array.shape[4:]
    flat = array.reshape(*lead, x * (x + y - 1), *trail)
    padded = jnp.pad(flat, [(0, 0), (0, 0), (0, x), *((0, 0),) * len(trail)])
    return padded.reshape(*lead, x, x + y, *trail)[:, :, :, :y]
