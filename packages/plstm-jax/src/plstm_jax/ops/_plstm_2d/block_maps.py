"""What a block of the grid does: from its inputs and entering border states to its outputs and leaving ones."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from plstm_jax.ops._plstm_2d.columns import columns
from plstm_jax.ops._plstm_2d.problem import Flips, Gates, sum_orientations
from plstm_jax.ops._plstm_2d.strips import walk_columns
from plstm_jax.ops.lines import diagonal


class BorderMaps(NamedTuple):
    """What a block does with its border states, per orientation, in image coordinates.

    LEFT = Y * JT states enter from the left and leave to the right, TOP = X * JT from the top and below.
    """

    read_left: Array  # [..., O, X * Y, JO, JQ, LEFT]
    read_top: Array  # [..., O, X * Y, JO, JQ, TOP]
    write_right: Array  # [..., O, X * Y, JV, JK, LEFT]
    write_bottom: Array  # [..., O, X * Y, JV, JK, TOP]
    right_of_left: Array  # [..., O, LEFT, LEFT]
    right_of_top: Array  # [..., O, LEFT, TOP]
    bottom_of_left: Array  # [..., O, TOP, LEFT]
    bottom_of_top: Array  # [..., O, TOP, TOP]


def block_responses(gates: Gates, direct: Array, flips: Flips) -> tuple[Array, BorderMaps]:
    """The map from the inputs of a block to its outputs, and those from and to its border states.

    Args:
        gates: [..., O, X, Y, ...] in image coordinates.
        direct: [..., X, Y, JO, JQ, JK, JV].
        flips: which way each orientation walks.

    Returns:
        [..., N, JO, JQ, N, JK, JV], and the maps of each orientation.
    """
    *lead, x, y, jo, jq, jk, jv = direct.shape
    nodes, read, write, carry = walk_columns(columns(gates, flips, border=True), flips)
    rows, cols, left, top = y * jo * jq, y * jk * jv, carry.shape[-1], x * gates.source_r.shape[-3]
    outer = (*lead, len(flips))

    def writes(array: Array) -> Array:
        """[..., border, X, Y * JK * JV] to [..., X * Y, JV, JK, border]."""
        array = array.reshape(*outer, array.shape[-3], x * y, jk, jv)
        return jnp.moveaxis(array, (-1, -4), (-3, -1))

    # The d states above and below each column stand behind the inputs and outputs of its nodes.
    return (
        _gating(sum_orientations(nodes[..., :rows, :, :cols], len(lead)), direct) + _direct_matrix(direct),
        BorderMaps(
            read_left=read[..., :rows, :].reshape(*outer, x * y, jo, jq, left),
            read_top=nodes[..., :rows, :, cols:].reshape(*outer, x * y, jo, jq, top),
            write_right=writes(write[..., :cols]),
            write_bottom=writes(nodes[..., rows:, :, :cols].reshape(*outer, top, x, cols)),
            right_of_left=carry,
            right_of_top=write[..., cols:].reshape(*outer, left, top),
            bottom_of_left=read[..., rows:, :].reshape(*outer, top, left),
            bottom_of_top=nodes[..., rows:, :, cols:].reshape(*outer, top, top),
        ),
    )


def _gating(nodes: Array, direct: Array) -> Array:
    """[..., X, Y * JO * JQ, X, Y * JK * JV] to [..., X * Y, JO, JQ, X * Y, JK, JV]."""
    x, y, jo, jq, jk, jv = direct.shape[-6:]
    return nodes.reshape(*direct.shape[:-6], x * y, jo, jq, x * y, jk, jv)


def _direct_matrix(direct: Array) -> Array:
    *lead, x, y, jo, jq, jk, jv = direct.shape
    spread = diagonal(direct.reshape(*lead, x * y, jo * jq, jk * jv))
    return spread.reshape(*lead, x * y, jo, jq, x * y, jk, jv)
