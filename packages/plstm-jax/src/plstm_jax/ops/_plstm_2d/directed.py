"""P-mode without state-tracking dimensions: the states r and d of a node move as one, its node state n.

With L the decay of the column at x from what arrives at one place to what arrives at another, S_d' = L S_d what its own
inputs put into its node states, and r what comes from the column before::

    n = L r + S_d' e        H = M n        r_out = T n + S_r e

A walk over the columns carries the response of r to all inputs so far. Only r is kept for the backward pass.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from plstm_jax.ops._plstm_2d.problem import Flips, Gates, by_direction, sum_orientations
from plstm_jax.ops._plstm_2d.strips import Strip
from plstm_jax.ops.arrays import contract, lifted
from plstm_jax.ops.lines import diagonal, scalar_decay


class _Column(NamedTuple):
    """Columns [..., O, X]; places in image coordinates."""

    decay: Array  # [..., O, X, Y, Y], L
    own: Array  # [..., O, X, Y, Y], from a column's inputs to its node states
    passed: Array  # [..., O, X, Y, Y], from a column's inputs to what it hands on
    transition: Array  # [..., O, X, Y]
    mark: Array  # [..., O, X, Y]


def directed_mask(gates: Gates, flips: Flips) -> Array:
    """The map [B, R, R] from the inputs of scalar gates [B, O, X, Y] to the outputs, summed over orientations."""
    return sum(strip.nodes for _, strip in _walks(gates, flips, border=False))  # type: ignore[return-value]


def directed_strips(gates: Gates, flips: Flips) -> list[tuple[bool, Strip]]:
    """The responses of scalar gates [B, O, X, Y]: which direction, and the orientations that walk it.

    Args:
        gates: in image coordinates.
        flips: which way each orientation walks.

    Returns:
        One or two strips, in image coordinates.
    """
    return _walks(gates, flips, border=True)


def _walks(gates: Gates, flips: Flips, border: bool) -> list[tuple[bool, Strip]]:
    found = _columns(gates, flips)
    walks = by_direction([flip.x for flip in flips])
    return [(backward, _walk(_Column(*(a[:, which] for a in found)), backward, border)) for backward, which in walks]


def _columns(gates: Gates, flips: Flips) -> _Column:
    decay = scalar_decay(gates.transition_du)
    backward = lifted(jnp.array([flip.y for flip in flips]).reshape(-1, 1, 1, 1), decay.ndim)
    arriving = jnp.where(backward, jnp.swapaxes(decay[..., 1:, 1:], -1, -2), decay[..., :-1, :-1])
    strictly = jnp.where(backward, jnp.swapaxes(decay[..., :-1, 1:], -1, -2), decay[..., :-1, 1:])
    own = strictly * gates.source_d[..., None, :]
    straight = diagonal(gates.source_r[..., None, None])[..., 0, :, 0]
    return _Column(arriving, own, straight + gates.transition_rl[..., None] * own, gates.transition_rl, gates.mark_l)


def _walk(columns: _Column, backward: bool, border: bool) -> Strip:
    """Carry the response of r to the states that arrived first, if `border`, and then to the inputs of each column."""
    batch, orientations, x, y = columns.mark.shape
    before = y if border else 0
    start = jnp.broadcast_to(
        jnp.eye(y, before + x * y, dtype=columns.mark.dtype) * int(border), (batch, orientations, y, before + x * y)
    )

    def step(state: Array, now: tuple[_Column, Array]) -> tuple[Array, tuple[Array, Array]]:
        column, place = now
        node = contract("...ij,...jc->...ic", column.decay, state)
        # Nothing has come from this column before, so its own places are still zero.
        node = lax.dynamic_update_slice_in_dim(node, column.own, place, -1)
        output = column.mark[..., None] * node
        state = lax.dynamic_update_slice_in_dim(column.transition[..., None] * node, column.passed, place, -1)
        return state, (output[..., :before], sum_orientations(output[..., before:], 1))

    by_place = _Column(*(jnp.moveaxis(array, 2, 0) for array in columns)), before + y * jnp.arange(x)
    last, (read, nodes) = lax.scan(jax.checkpoint(step, prevent_cse=False), start, by_place, reverse=backward)
    return Strip(
        jnp.moveaxis(nodes, 0, 1).reshape(batch, x * y, x * y),
        jnp.moveaxis(read, 0, 2).reshape(batch, orientations, x * y, before),
        last[..., before:],
        last[..., :before],
    )
