"""Columns that follow one another as one system: they make strips of the grid, and blocks."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from plstm_jax.ops._plstm_2d.columns import Columns, columns
from plstm_jax.ops._plstm_2d.problem import Flips, Gates, by_direction, sum_orientations
from plstm_jax.ops.arrays import contract
from plstm_jax.ops.lines import Line, Response, line_response


class Strip(NamedTuple):
    """What X columns do, for the orientations that walk them in one direction; R = X * Y."""

    nodes: Array  # [B, R, R], from the inputs to the outputs, summed over orientations
    read: Array  # [B, O, R, Y], from the states r that arrive
    write: Array  # [B, O, Y, R], to the states r that leave
    carry: Array  # [B, O, Y, Y], from those that arrive to those that leave


def walk_columns(found: Columns, flips: Flips) -> Response:
    """Let the columns [..., O, X, ...] of each orientation follow one another; the response is in image coordinates."""

    def turned(array: Array, *axes: int) -> Array:
        """In the order of the walk, or back in that of the image."""
        if not any(flip.x for flip in flips):
            return array
        lead = found.nodes.ndim - 4
        backward = jnp.array([flip.x for flip in flips]).reshape(-1, *(1,) * (array.ndim - lead - 1))
        return jnp.where(backward, jnp.flip(array, axes), array)

    nodes, read, write, carry = line_response(Line(*(turned(array, -3) for array in found)))
    return Response(turned(nodes, -4, -2), turned(read, -3), turned(write, -2), carry)


def strip_responses(gates: Gates, flips: Flips) -> list[tuple[bool, Strip]]:
    """What strips do, for any gates.

    Args:
        gates: [M, O, width, Y, ...] in image coordinates.
        flips: which way each orientation walks.

    Returns:
        One or two strips: which direction, and what the orientations that walk it do.
    """
    nodes, read, write, carry = walk_columns(columns(gates, flips, border=False), flips)
    nodes, read = (array.reshape(*array.shape[:2], -1, *array.shape[4:]) for array in (nodes, read))
    nodes, write = (array.reshape(*array.shape[:3], -1) for array in (nodes, write))
    strips = []
    for backward, which in by_direction([flip.x for flip in flips]):
        parts = (array[:, which] for array in (read, write, carry))
        strips.append((backward, Strip(sum_orientations(nodes[:, which], 1), *parts)))
    return strips


def arriving_states(write: Array, carry: Array, backward: bool) -> Array:
    """The states that arrive at every strip from the strips before it.

    Args:
        write: [S, B, O, T, inputs].
        carry: [S, B, O, T, T].
        backward: whether the orientations walk the strips from their end.

    Returns:
        The responses of the states to the inputs of all strips, [S, B, O, T, S * inputs].
    """
    count, *lead, inputs = write.shape

    def step(state: Array, strip: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        write, carry, place = strip
        passed = contract("...ij,...jc->...ic", carry, state)
        return lax.dynamic_update_slice_in_dim(passed, write, place, -1), state

    start = jnp.zeros((*lead, count * inputs), write.dtype)
    return lax.scan(step, start, (write, carry, inputs * jnp.arange(count)), reverse=backward)[1]
