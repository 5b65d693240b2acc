"""What a block of the grid does: from its inputs and entering border states to its outputs and leaving ones."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from plstm_jax.ops.lines import Line, Response, diagonal, line_response
from plstm_jax.ops.plstm_2d.columns import Columns, columns
from plstm_jax.ops.plstm_2d.problem import Flips, Gates, sum_orientations


class BorderResponse(NamedTuple):
    """Maps of a block per orientation, in image coordinates; a border lists (Y, JT) of r before (X, JT) of d."""

    read: Array  # [..., O, X * Y, JO, JQ, border]: from the entering states to the outputs
    write: Array  # [..., O, border, X * Y, JK, JV]: from the inputs to the leaving states
    carry: Array  # [..., O, border, border]: from the entering to the leaving states


def block_responses(gates: Gates, direct: Array, flips: Flips) -> tuple[Array, BorderResponse]:
    """`gating_matrix`, and the maps from and to the block's border states.

    Args:
        gates: [..., O, X, Y, ...] in image coordinates.
        direct: [..., X, Y, JO, JQ, JK, JV].
        flips: which way each orientation walks.

    Returns:
        [..., N, JO, JQ, N, JK, JV], and the maps of each orientation.
    """
    *lead, x, y, jo, jq, jk, jv = direct.shape
    nodes, read, write, carry = walk_columns(columns(gates, flips, border=True), flips)
    rows, cols, states, tops = y * jo * jq, y * jk * jv, carry.shape[-1], x * gates.source_r.shape[-3]
    outer = (*lead, len(flips))
    reads = (read[..., :rows, :].reshape(*outer, x * rows, states), nodes[..., :rows, :, cols:])
    writes = (write[..., :cols].reshape(*outer, states, x * cols), nodes[..., rows:, :, :cols])
    to_right = (carry, write[..., cols:].reshape(*outer, states, tops))
    to_bottom = (read[..., rows:, :].reshape(*outer, tops, states), nodes[..., rows:, :, cols:])
    border = states + tops
    return (
        _gating(sum_orientations(nodes[..., :rows, :, :cols], len(lead)), direct) + _direct_matrix(direct),
        BorderResponse(
            _beside(reads, (*outer, x * rows, tops)).reshape(*outer, x * y, jo, jq, border),
            jnp.concatenate([writes[0], writes[1].reshape(*outer, tops, x * cols)], -2).reshape(
                *outer, border, x * y, jk, jv
            ),
            jnp.concatenate([_beside(to_right, (*outer, states, tops)), _beside(to_bottom, (*outer, tops, tops))], -2),
        ),
    )


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


def _gating(nodes: Array, direct: Array) -> Array:
    """[..., X, Y * JO * JQ, X, Y * JK * JV] to [..., X * Y, JO, JQ, X * Y, JK, JV]."""
    x, y, jo, jq, jk, jv = direct.shape[-6:]
    return nodes.reshape(*direct.shape[:-6], x * y, jo, jq, x * y, jk, jv)


def _direct_matrix(direct: Array) -> Array:
    *lead, x, y, jo, jq, jk, jv = direct.shape
    spread = diagonal(direct.reshape(*lead, x * y, jo * jq, jk * jv))
    return spread.reshape(*lead, x * y, jo, jq, x * y, jk, jv)


def _beside(pair: tuple[Array, Array], shape: tuple[int, ...]) -> Array:
    """A matrix, and to the right of it another that is brought to its shape first."""
    return jnp.concatenate([pair[0], pair[1].reshape(shape)], -1)
