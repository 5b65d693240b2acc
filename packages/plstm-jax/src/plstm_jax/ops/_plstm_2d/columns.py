"""Columns of the grid as the nodes of a line: what a column does with the r states that arrive from its left.

Within the column at x the d states follow one another along Y. With L the decay of that line (zero on the diagonal),

    d = L (T_dl r + S_d e)        H = M_l r + M_u d        r_out = T_rl r + T_ru d + S_r e

so each column is one node of a line along X with Y * JT states, Y * JK * JV inputs and Y * JO * JQ outputs. If the
grid's own border matters, the d state from above is one more input of the column and the one below one more output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from plstm_jax.ops._plstm_2d.problem import Flips, Gates
from plstm_jax.ops.arrays import contract
from plstm_jax.ops.lines import Response, diagonal, line_decay


class Columns(NamedTuple):
    """Columns [..., O, X] as nodes of lines; borders come after the nodes' own outputs R and inputs C."""

    nodes: Array  # [..., O, X, R, C]
    mark: Array  # [..., O, X, R, Y * JT]
    source: Array  # [..., O, X, Y * JT, C]
    transition: Array  # [..., O, X, Y * JT, Y * JT]


def columns(gates: Gates, flips: Flips, border: bool) -> Columns:
    """Responses of all columns of gates [..., O, X, Y, ...].

    Args:
        gates: in image coordinates.
        flips: which way each orientation walks.
        border: whether the d states from above and below count as inputs and outputs; R and C are then larger by JT.

    Returns:
        The responses of each column; Y, also in the states, stays in image coordinates.
    """
    gates = gates.with_turns()
    *lead, y, jt, jk, jv = gates.source_r.shape
    jo, jq = gates.mark_l.shape[-3:-1]
    ends = _column_decay(gates.transition_du, flips)
    decay = ends.nodes
    mark_l = gates.mark_l.reshape(*lead, y, jo * jq, jt)
    mark_u = gates.upper_mark.reshape(*lead, y, jo * jq, jt)
    source_r = gates.source_r.reshape(*lead, y, jt, jk * jv)
    source_d = gates.source_d.reshape(*lead, y, jt, jk * jv)
    from_inputs = contract("...yivj,...vjc->...yivc", decay, source_d)
    nodes = contract("...yri,...yivc->...yrvc", mark_u, from_inputs)
    mark, source, transition = diagonal(mark_l), diagonal(source_r), diagonal(gates.transition_rl)
    if gates.transition_ru is not None:
        source = source + contract("...yti,...yivc->...ytvc", gates.transition_ru, from_inputs)
    if gates.transition_dl is not None:
        from_states = contract("...yivj,...vjs->...yivs", decay, gates.transition_dl)
        mark = mark + contract("...yri,...yivs->...yrvs", mark_u, from_states)
        if gates.transition_ru is not None:
            transition = transition + contract("...yti,...yivs->...ytvs", gates.transition_ru, from_states)
    found = Columns(*(_as_matrix(array) for array in (nodes, mark, source, transition)))
    return _with_border(found, gates, ends, mark_u, source_d) if border else found


def _with_border(found: Columns, gates: Gates, ends: Response, mark_u: Array, source_d: Array) -> Columns:
    from_top = _as_rows(contract("...yri,...yis->...yrs", mark_u, ends.read))
    to_bottom = _as_columns(contract("...ivj,...vjc->...ivc", ends.write, source_d))
    nodes = jnp.concatenate(
        [
            jnp.concatenate([found.nodes, from_top], -1),
            jnp.concatenate([to_bottom, ends.carry], -1),
        ],
        -2,
    )
    if gates.transition_dl is None:
        below = jnp.zeros((*found.mark.shape[:-2], ends.carry.shape[-1], found.mark.shape[-1]), found.mark.dtype)
    else:
        below = _as_columns(contract("...ivj,...vjs->...ivs", ends.write, gates.transition_dl))
    if gates.transition_ru is None:
        above = jnp.zeros((*found.source.shape[:-1], ends.carry.shape[-1]), found.source.dtype)
    else:
        above = _as_rows(contract("...yti,...yis->...yts", gates.transition_ru, ends.read))
    return Columns(
        nodes,
        jnp.concatenate([found.mark, below], -2),
        jnp.concatenate([found.source, above], -1),
        found.transition,
    )


def _column_decay(transition: Array, flips: Flips) -> Response:
    """`line_decay` along Y of transitions [..., O, X, Y, JT, JT], for each orientation in its direction.

    What lies between two places is the same in both directions. Only the order of the factors turns, which the
    transposed product of the transposed factors undoes.
    """
    walks = [flip.y for flip in flips]
    axis = transition.ndim - 5
    decay, read, write, carry = line_decay(_where(walks, jnp.swapaxes(transition, -1, -2), transition, axis))
    return Response(
        _where(walks, jnp.moveaxis(decay, (-2, -1), (-4, -3)), decay, axis),
        _where(walks, jnp.moveaxis(write, -3, -1), read, axis),
        _where(walks, jnp.moveaxis(read, -1, -3), write, axis),
        _where(walks, jnp.swapaxes(carry, -1, -2), carry, axis),
    )


def _where(walks: Sequence[bool], backward: Array, forward: Array, axis: int) -> Array:
    """Slices of one of two arrays along the axis of orientations, as each orientation walks."""
    if not any(walks):
        return forward
    chosen = jnp.array(walks).reshape(-1, *(1,) * (forward.ndim - axis - 1))
    return jnp.where(chosen, backward, forward)


def _as_matrix(array: Array) -> Array:
    *lead, y, rows, v, cols = array.shape
    return array.reshape(*lead, y * rows, v * cols)


def _as_rows(array: Array) -> Array:
    *lead, y, rows, cols = array.shape
    return array.reshape(*lead, y * rows, cols)


def _as_columns(array: Array) -> Array:
    *lead, rows, y, cols = array.shape
    return array.reshape(*lead, rows, y * cols)
