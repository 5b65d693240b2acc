"""What is not finite, and whom it reaches: the forms by gating matrices compute without it, and mark them afterwards.

A gating matrix of a whole grid or block lets one NaN reach every node of it, since zero times NaN is NaN. So numbers
that are not finite count as zero there, and what the walk over the grid would have led them to is multiplied by NaN,
which makes its gradients NaN as well. Queries need no care: each acts at its own node only.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool

from plstm_jax.ops._plstm_2d.problem import Gates, Problem, Result, flip_each
from plstm_jax.ops.arrays import only_finite


class Reached(NamedTuple):
    """Where the walk leads something that is not finite."""

    nodes: Bool[Array, "B X Y"]
    right: Bool[Array, "B O Y"]
    bottom: Bool[Array, "B O X"]


def without_spoilt(problem: Problem, *, enters: bool) -> Problem:
    """The problem with zeros for what is not finite, but in the query; `enters` says whether states were given."""
    if enters:
        problem = problem._replace(left=only_finite(problem.left), top=only_finite(problem.top))
    return problem._replace(
        key=only_finite(problem.key),
        value=only_finite(problem.value),
        gates=problem.gates.map(only_finite),
        direct=only_finite(problem.direct),
    )


def marked(result: Result, reached: Reached) -> Result:
    """The result with NaN in the places that are reached."""
    return Result(*(_multiply(array, spoilt) for array, spoilt in zip(result, reached, strict=True)))


def reached(problem: Problem, *, enters: bool) -> Reached:
    """Where something arrives that is not finite; `enters` says whether states were given."""
    flips, gates = problem.flips, problem.gates.with_turns()
    inputs = _is_spoilt(problem.key, 3) | _is_spoilt(problem.value, 3)
    spoilt = gates.map(lambda gate: _is_spoilt(gate, 4))
    right = _any(inputs[:, None], spoilt.source_r, spoilt.transition_rl, spoilt.transition_ru)
    down = _any(inputs[:, None], spoilt.source_d, spoilt.transition_du, spoilt.transition_dl)
    right, down = (flip_each(array, flips, 2, 3) for array in (right, down))
    if enters:
        left = flip_each(_is_spoilt(problem.left, 3), flips, None, 2)
        top = flip_each(_is_spoilt(problem.top, 3), flips, 2, None)
    else:  # compilers take seconds to find out that zeros are finite
        left, top = jnp.zeros(problem.left.shape[:3], bool), jnp.zeros(problem.top.shape[:3], bool)
    from_left, from_above = _walk(gates, (right, down), (left, top))
    read = _any(flip_each(from_left | from_above, flips, 2, 3), spoilt.mark_l, spoilt.upper_mark)
    right = _any(right, from_left, None if gates.transition_ru is None else from_above)
    down = _any(down, from_above, None if gates.transition_dl is None else from_left)
    return Reached(
        inputs | _is_spoilt(problem.direct, 3) | jnp.any(read, 1),
        flip_each(right[:, :, -1], flips, None, 2),
        flip_each(down[..., -1], flips, 2, None),
    )


def _walk(gates: Gates, handed_on: tuple[Array, Array], entering: tuple[Array, Array]) -> tuple[Array, Array]:
    """Whether what arrives from the left and from above is spoilt, [B, O, X, Y] in the order of the walk.

    Args:
        gates: say which transitions there are.
        handed_on: the nodes that hand on something spoilt to the right, and down, whatever arrives.
        entering: what enters the grid, [B, O, Y] and [B, O, X].
    """
    (right, down), (left, top) = handed_on, entering

    def moved_right(spoilt: Array) -> Array:
        return jnp.concatenate([left[:, :, None], spoilt[:, :, :-1]], 2)

    def moved_down(spoilt: Array) -> Array:
        return jnp.concatenate([top[..., None], spoilt[..., :-1]], 3)

    if gates.transition_dl is not None and gates.transition_ru is not None:  # everything right of it and below
        arriving = _since(_since(moved_right(right) | moved_down(down), 2), 3)
        return moved_right(right | arriving), moved_down(down | arriving)
    if gates.transition_dl is None:
        from_above = _since(moved_down(down), 3)
        turned = _any(right, None if gates.transition_ru is None else from_above)
        return _since(moved_right(turned), 2), from_above
    from_left = _since(moved_right(right), 2)
    return from_left, _since(moved_down(down | from_left), 3)


def _any(first: Array, *others: Array | None) -> Array:
    for other in others:
        first = first if other is None else first | other
    return first


def _is_spoilt(array: Array, leading: int) -> Array:
    """Whether anything behind the leading axes is not finite."""
    return ~jnp.all(jnp.isfinite(array), axis=range(leading, array.ndim))


def _since(spoilt: Array, axis: int) -> Array:
    """Whether anything up to a place is spoilt: counts by a product, for which compilers have fast and small code."""
    lines = jnp.moveaxis(spoilt, axis, -1)
    counts = lines.reshape(-1, lines.shape[-1]).astype(jnp.float32) @ jnp.tri(lines.shape[-1], dtype=jnp.float32).T
    return jnp.moveaxis((counts > 0).reshape(lines.shape), -1, axis)


def _multiply(array: Array, spoilt: Array) -> Array:
    factor = jnp.where(spoilt, jnp.full((), jnp.nan, array.dtype), jnp.ones((), array.dtype))
    return array * lax.expand_dims(factor, range(spoilt.ndim, array.ndim))
