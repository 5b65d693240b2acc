"""The gating matrix of a whole grid, all orientations summed: what the quadratic form masks its scores with."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax

from plstm_jax.ops.arrays import contract
from plstm_jax.ops.lines import diagonal
from plstm_jax.ops.plstm_2d.columns import columns, shared_columns
from plstm_jax.ops.plstm_2d.problem import Flips, Gates, by_direction, sum_orientations
from plstm_jax.ops.plstm_2d.responses import walk_columns
from plstm_jax.ops.plstm_2d.separable import separable_gating

# Up to this many columns make one strip, which compiles in half the time.
ONE_STRIP = 16


def gating_matrix(gates: Gates, direct: Array, flips: Flips) -> Array:
    """The map from the inputs of a grid to its outputs.

    Args:
        gates: [..., O, X, Y, ...] in image coordinates.
        direct: [..., X, Y, JO, JQ, JK, JV].
        flips: which way each orientation walks.

    Returns:
        [..., N, JO, JQ, N, JK, JV] with N = X * Y.
    """
    *lead, x, y, jo, jq, jk, jv = direct.shape
    if gates.is_scalar and gates.mode == "L":
        scalars = gates.map(lambda gate: gate.reshape(gate.shape[: len(lead) + 3]))
        gating = separable_gating(scalars, direct[..., 0, 0, 0, 0], flips)
    else:
        gating = _strip_gating(gates, direct, flips)
    return gating.reshape(*lead, x * y, jo, jq, x * y, jk, jv)


def _strip_gating(gates: Gates, direct: Array, flips: Flips) -> Array:
    """Any gates [B, O, X, Y, ...]: columns make strips, whose states connect them; [B, X * Y * ..., X * Y * ...]."""
    batch, x, y, jo, jq, jk, jv = direct.shape
    count = 1 if x <= ONE_STRIP else -(-x // max(1, round((x / 2) ** 0.5)))
    width = -(-x // count)
    rows, inputs = width * y * jo * jq, width * y * jk * jv

    def strips(array: Array, axis: int) -> Array:
        """[B, ..., X, Y, ...] to [B * S, ..., width, Y, ...]; nodes beyond the grid hold nothing."""
        pads = [(0, 0)] * array.ndim
        pads[axis] = (0, count * width - x)
        array = jnp.pad(array, pads) if count * width > x else array
        array = array.reshape(*array.shape[:axis], count, width, *array.shape[axis + 1 :])
        return jnp.moveaxis(array, axis, 1).reshape(batch * count, *array.shape[1:axis], *array.shape[axis + 1 :])

    gates = gates.map(lambda gate: strips(gate, 2))
    shared = gates.is_scalar and gates.mode == "P"
    found = shared_columns(gates, flips) if shared else columns(gates, flips, border=False)
    nodes, read, write, carry = walk_columns(found, flips)
    states = carry.shape[-1]
    own = _direct_nodes(strips(direct, 1)).reshape(batch * count, rows, inputs)
    own = own + sum_orientations(nodes.reshape(batch * count, len(flips), rows, inputs), 1)
    if count == 1:
        return own
    read = read.reshape(batch, count, len(flips), rows, states)
    write = write.reshape(batch, count, len(flips), states, inputs)
    carry = carry.reshape(batch, count, len(flips), states, states)
    read, write, carry = (_by_direction(array, flips) for array in (read, write, carry))
    gating = _connect(read, write, carry, own.reshape(batch, count, rows, inputs))
    return gating[:, : x * y * jo * jq, : x * y * jk * jv]


def _by_direction(array: Array, flips: Flips) -> Array:
    """[B, S, O, ...] to [B, S, G, O / G, ...], strips in the order in which each of the G directions walks them."""
    groups = []
    for backward, which in by_direction([flip.x for flip in flips]):
        group = array[:, :, which]
        groups.append(jnp.flip(group, 1) if backward else group)
    return jnp.stack(groups, 2)


def _connect(read: Array, write: Array, carry: Array, own: Array) -> Array:
    """What reaches every strip from the strips before it on either walk, and from itself.

    Args:
        read: [B, S, G, O, rows, T].
        write: [B, S, G, O, T, inputs].
        carry: [B, S, G, O, T, T].
        own: what comes from a strip's own inputs [B, S, rows, inputs], all orientations.

    Returns:
        [B, S * rows, S * inputs].
    """
    batch, count, groups, orientations, rows, states = read.shape
    inputs = write.shape[-1]
    # The orientations share the inner dimension of the product with what arrives, which thereby sums them.
    read = jnp.swapaxes(read, -3, -2).reshape(batch, count, groups, rows, orientations * states)
    own = jnp.expand_dims(own, 2)

    def step(arriving: Array, now: tuple[Array, ...]) -> tuple[Array, Array]:
        read, write, carry, own, place = now
        stacked = arriving.reshape(batch, groups, orientations * states, count * inputs)
        output = contract("...rs,...sc->...rc", read, stacked)
        passed = contract("...ij,...jc->...ic", carry, arriving)
        # Nothing has come from this strip before, so its own columns are still zero.
        output = lax.dynamic_update_slice(output, own, (0, 0, 0, place))
        return lax.dynamic_update_slice_in_dim(passed, write, place, -1), output

    start = jnp.zeros((batch, groups, orientations, states, count * inputs), carry.dtype)
    by_strip = (*(jnp.moveaxis(array, 1, 0) for array in (read, write, carry, own)), inputs * jnp.arange(count))
    outputs = lax.scan(step, start, by_strip)[1].reshape(count, batch, groups, rows, count, inputs)
    gating = outputs[:, :, 0]
    for group in range(1, groups):  # walks from the other end
        gating = gating + jnp.flip(outputs[:, :, group], (0, -2))
    return jnp.moveaxis(gating, 0, 1).reshape(batch, count * rows, count * inputs)


def _direct_nodes(direct: Array) -> Array:
    """The direct term between the nodes of a strip: [..., width * Y * JO * JQ, width * Y * JK * JV]."""
    *lead, width, y, jo, jq, jk, jv = direct.shape
    spread = diagonal(direct.reshape(*lead, width * y, jo * jq, jk * jv))
    return spread.reshape(*lead, width * y * jo * jq, width * y * jk * jv)
