"""Lines of nodes: how the input of every node reaches the output of every other.

A node of a line takes the line's state Z and an input e, gives `mark Z + direct e`, and hands on `transition Z +
source e`. A scan along the line carries the response of the state to every input at once, so with the responses

    nodes   from the inputs of the line to its outputs
    read    from the entering state to the outputs
    write   from the inputs to the leaving state
    carry   from the entering to the leaving state

a step costs two products, whatever the number of inputs. Nothing is ever divided, so transitions may be zero or
negative, and every derivative of any order is the product rule. A scan compiles once for any length.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from plstm_jax.ops.arrays import contract


class Line(NamedTuple):
    """n nodes that hand on a state, with R outputs, T states and C inputs each."""

    direct: Array  # [..., n, R, C]
    mark: Array  # [..., n, R, T]
    source: Array  # [..., n, T, C]
    transition: Array  # [..., n, T, T]


class Response(NamedTuple):
    """What a line does as a whole."""

    nodes: Array  # [..., n, R, n, C]
    read: Array  # [..., n, R, T]
    write: Array  # [..., T, n, C]
    carry: Array  # [..., T, T]


def line_response(line: Line) -> Response:
    """The responses of a line that is walked from its first node to its last."""
    *lead, places, size, inputs = line.source.shape
    eye = jnp.eye(size, size + places * inputs, dtype=line.source.dtype)

    def step(state: Array, now: tuple[Line, Array]) -> tuple[Array, Array]:
        node, column = now
        output = contract("...rt,...tc->...rc", node.mark, state)
        moved = contract("...ts,...sc->...tc", node.transition, state)
        # Nothing has come from this place before, so its own columns are still zero.
        output = lax.dynamic_update_slice_in_dim(output, node.direct, column, -1)
        return lax.dynamic_update_slice_in_dim(moved, node.source, column, -1), output

    by_place = Line(*(jnp.moveaxis(array, -3, 0) for array in line)), size + inputs * jnp.arange(places)
    last, outputs = lax.scan(step, jnp.broadcast_to(eye, (*lead, *eye.shape)), by_place)
    outputs = jnp.moveaxis(outputs, 0, -3)
    return Response(
        outputs[..., size:].reshape(*outputs.shape[:-1], places, inputs),
        outputs[..., :size],
        last[..., size:].reshape(*last.shape[:-1], places, inputs),
        last[..., :size],
    )


def line_decay(transition: Array) -> Response:
    """Products of the transitions between the places of a line.

    Args:
        transition: [..., n, J, J].

    Returns:
        As `nodes` the product of all transitions strictly between two places, zero where the first does not lie behind
        the second; as `read`, `write` and `carry` those from the line's start, to its end, and in whole.
    """
    eye = jnp.broadcast_to(jnp.eye(transition.shape[-1], dtype=transition.dtype), transition.shape)
    return line_response(Line(jnp.zeros_like(transition), eye, eye, transition))


@jax.custom_jvp
def scalar_decay(transition: Array) -> Array:
    """Products of scalar transitions along a line.

    Args:
        transition: [..., n].

    Returns:
        E [..., n + 1, n + 1] with E[i, j] the product of the transitions at j, ..., i - 1; one where i = j, zero above.
        So E[:-1, 1:] is what lies strictly between two places, E[:-1, 0] what lies before one, E[-1, 1:] behind.
    """
    units = jnp.eye(transition.shape[-1] + 1, dtype=transition.dtype)

    def step(row: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        factor, unit = now
        row = factor[..., None] * row + unit
        return row, row

    first = jnp.broadcast_to(units[0], (*transition.shape[:-1], len(units)))
    rows = lax.scan(step, first, (jnp.moveaxis(transition, -1, 0), units[1:]))[1]
    return jnp.moveaxis(jnp.concatenate([first[None], rows]), 0, -2)


@scalar_decay.defjvp
def _scalar_decay_tangent(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """The derivative of a product by one factor is what stands on either side of it: two products, not a scan."""
    decay = scalar_decay(*primals)
    return decay, contract("...ik,...kj->...ij", decay[..., 1:], tangents[0][..., None] * decay[..., :-1, :])


def diagonal(array: Array) -> Array:
    """[..., n, R, C] to [..., n, R, n, C], zero where the two n differ.

    Entry (i, i) of a square stands n + 1 places behind the one before: padding does it without a mask, whose
    derivative would sum over everything that it hides.
    """
    *lead, size, rows, inputs = array.shape
    padded = jnp.pad(array[..., :, None, :, :], [(0, 0)] * (array.ndim - 2) + [(0, size), (0, 0), (0, 0)])
    square = padded.reshape(*lead, size * (size + 1), rows, inputs)[..., : size * size, :, :]
    return jnp.moveaxis(square.reshape(*lead, size, size, rows, inputs), -3, -2)
