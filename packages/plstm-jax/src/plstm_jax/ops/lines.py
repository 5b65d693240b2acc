"""Lines of nodes: how the input of every node reaches the output of every other.

A node of a line takes the line's state Z and an input e, gives `mark Z + direct e`, and hands on `transition Z +
source e`. The line as a whole has four responses:

    nodes   from the inputs of the line to its outputs
    read    from the entering state to the outputs
    write   from the inputs to the leaving state
    carry   from the entering to the leaving state

Nothing is ever divided, so transitions may be zero or negative, and every derivative of any order is the product rule.
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
    """The responses of a line that is walked from its first node to its last, by a scan: one program for any length.

    The scan carries the response of the state to every input at once, so that a step costs two products.
    """
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


def decay_line(transition: Array) -> Line:
    """The line of transitions [..., n, J, J] whose inputs join the state, and whose outputs are the arriving states.

    So its `nodes` are the products of all transitions strictly between two places, zero where the first does not lie
    behind the second; `read`, `write` and `carry` those from the line's start, to its end, and in whole.
    """
    eye = jnp.broadcast_to(jnp.eye(transition.shape[-1], dtype=transition.dtype), transition.shape)
    return Line(jnp.zeros_like(transition), eye, eye, transition)


def line_decay(transition: Array) -> Response:
    """The responses of `decay_line`."""
    return line_response(decay_line(transition))


def line_matrix(line: Line) -> Array:
    """The responses of a short line in one matrix: faster than a scan, but the program grows with the doublings.

    A stretch of m nodes maps the entering state and its inputs to its outputs and the leaving state::

        W = [read  nodes]        [m * R + T, T + m * C]
            [carry write]

    What two neighbours do together follows from one product, of what the second makes of its entering state and what
    the first makes that state of. So stretches double until one is left.

    Args:
        line: [..., n, ...].

    Returns:
        W of the whole line, [..., n * R + T, T + n * C].
    """
    *_, places, outputs, inputs = line.direct.shape
    size = line.transition.shape[-1]
    stretches = jnp.concatenate(
        [jnp.concatenate([line.mark, line.direct], -1), jnp.concatenate([line.transition, line.source], -1)], -2
    )
    while stretches.shape[-3] > 1:
        if stretches.shape[-3] % 2:
            stretches = jnp.concatenate([stretches, _idle(stretches, size)], -3)
        stretches = _joined(stretches[..., ::2, :, :], stretches[..., 1::2, :, :], size)
    whole = stretches[..., 0, :, : size + places * inputs]
    if whole.shape[-2] == places * outputs + size:
        return whole
    return jnp.concatenate([whole[..., : places * outputs, :], whole[..., -size:, :]], -2)


def short_line_response(line: Line) -> Response:
    """`line_response` by way of `line_matrix`."""
    *_, places, outputs, inputs = line.direct.shape
    size = line.transition.shape[-1]
    whole = line_matrix(line)
    lead = whole.shape[:-2]
    rows = places * outputs
    return Response(
        whole[..., :rows, size:].reshape(*lead, places, outputs, places, inputs),
        whole[..., :rows, :size].reshape(*lead, places, outputs, size),
        whole[..., rows:, size:].reshape(*lead, size, places, inputs),
        whole[..., rows:, :size],
    )


def _idle(stretches: Array, size: int) -> Array:
    """One stretch that hands on the state and does nothing else."""
    *lead, _, rows, columns = stretches.shape
    corner = jnp.eye(rows, columns, size - rows, dtype=stretches.dtype)
    return jnp.broadcast_to(corner, (*lead, 1, rows, columns))


def _joined(first: Array, second: Array, size: int) -> Array:
    """The stretches `first` [..., m * R + T, T + m * C], each followed by one of `second`."""
    rows, columns = first.shape[-2] - size, first.shape[-1] - size
    through = contract("...rt,...tc->...rc", second[..., :size], first[..., rows:, :])
    before = jnp.pad(first[..., :rows, :], [(0, 0)] * (first.ndim - 1) + [(0, columns)])
    return jnp.concatenate([before, jnp.concatenate([through, second[..., size:]], -1)], -2)


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
        row = factor[..., None] * row + jnp.broadcast_to(unit, row.shape)
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
