"""What every implementation of the 2D ops works on: inputs in the compute dtype, gates with an orientation axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

Mode = Literal["general", "P", "L", "R"]


class Flip(NamedTuple):
    """Which axes an orientation walks from their end to their start."""

    x: bool
    y: bool


Flips = tuple[Flip, ...]
ONE_ORIENTATION: Flips = (Flip(False, False),)
FOUR_ORIENTATIONS: Flips = tuple(Flip(bool(o & 1), bool(o & 2)) for o in range(4))


class Gates(NamedTuple):
    """Gates [B, O, X, Y, ...] in image coordinates; a transition of None is zero.

    In P-mode what arrives from the left and from above is treated alike: `mark_u`, `transition_ru` and `transition_dl`
    are None, and `mark_l`, `transition_rl` and `transition_du` serve in their places. So the mode is part of the
    structure of the tree, which every transform keeps.
    """

    source_r: Array
    source_d: Array
    transition_rl: Array
    transition_du: Array
    transition_dl: Array | None
    transition_ru: Array | None
    mark_l: Array
    mark_u: Array | None

    def map(self, function: Callable[[Array], Array]) -> Gates:
        """The same gates with a function applied to each that is there."""
        return Gates(*(None if gate is None else function(gate) for gate in self))  # type: ignore[arg-type]

    @property
    def mode(self) -> Mode:
        """The structure that the gates have by what is left out, never by their values or their identity."""
        if self.mark_u is None:
            return "P"
        if self.transition_dl is None:
            return "L"
        return "R" if self.transition_ru is None else "general"

    @property
    def upper_mark(self) -> Array:
        """The mark of what arrives from above, in every mode."""
        return self.mark_l if self.mark_u is None else self.mark_u

    def with_turns(self) -> Gates:
        """The same gates with all transitions that are not zero, as the forms for any gates need them."""
        if self.mode != "P":
            return self
        return self._replace(transition_dl=self.transition_du, transition_ru=self.transition_rl, mark_u=self.mark_l)

    @property
    def is_scalar(self) -> bool:
        """Whether all state-tracking dimensions are one."""
        return self.source_r.shape[-3:] == self.mark_l.shape[-3:] == (1, 1, 1)


class Problem(NamedTuple):
    """One call of an op, after validation: marks and direct are scaled, everything has the compute dtype.

    Border states stand in image coordinates, too: left [B, O, Y, DK, JT, DV] and top [B, O, X, DK, JT, DV] are the
    upstream sides of their orientation.
    """

    query: Array
    key: Array
    value: Array
    gates: Gates
    direct: Array
    flips: Flips
    left: Array
    top: Array
    needs_states: bool  # whether a state was given or is asked for


class Result(NamedTuple):
    """Output [B, X, Y, DV, JO], and the states that leave: [B, O, Y, DK, JT, DV] and [B, O, X, DK, JT, DV]."""

    output: Array
    right: Array
    bottom: Array


def exchange_axes(problem: Problem) -> Problem:
    """The same problem with X and Y, right and down exchanged: chirality R becomes L."""
    gates = problem.gates.map(lambda gate: _exchange_orientations(jnp.swapaxes(gate, 2, 3)))
    query, key, value, direct = (
        jnp.swapaxes(array, 1, 2) for array in (problem.query, problem.key, problem.value, problem.direct)
    )
    return problem._replace(
        query=query,
        key=key,
        value=value,
        gates=Gates(
            source_r=gates.source_d,
            source_d=gates.source_r,
            transition_rl=gates.transition_du,
            transition_du=gates.transition_rl,
            transition_dl=gates.transition_ru,
            transition_ru=gates.transition_dl,
            mark_l=gates.upper_mark,
            mark_u=None if gates.mark_u is None else gates.mark_l,
        ),
        direct=direct,
        left=_exchange_orientations(problem.top),
        top=_exchange_orientations(problem.left),
    )


def exchange_axes_of_result(result: Result) -> Result:
    """The result of a problem from that of the problem with exchanged axes."""
    output = jnp.swapaxes(result.output, 1, 2)
    return Result(output, _exchange_orientations(result.bottom), _exchange_orientations(result.right))


def _exchange_orientations(array: Array) -> Array:
    """What walked X backwards now walks Y backwards."""
    if array.shape[1] == 1:
        return array
    return jnp.concatenate([array[:, :1], array[:, 2:3], array[:, 1:2], array[:, 3:]], 1)


def flip_each(array: Array, flips: Flips, x_axis: int | None, y_axis: int | None) -> Array:
    """Turn the grid axes of an array [B, O, ...] orientation by orientation: its own inverse."""
    if not any(flip.x or flip.y for flip in flips):
        return array
    turned = []
    for orientation, flip in enumerate(flips):
        axes = [axis for axis, wanted in ((x_axis, flip.x), (y_axis, flip.y)) if wanted and axis is not None]
        turned.append(jnp.flip(array[:, orientation : orientation + 1], axes))
    return jnp.concatenate(turned, 1)


def copies(array: Array, flips: Flips) -> Array:
    """An array [B, X, Y, ...] once per orientation, turned into the order of its walk: [B, O, X, Y, ...]."""
    turned = []
    for flip in flips:
        axes = [axis for axis, wanted in ((1, flip.x), (2, flip.y)) if wanted]
        turned.append(jnp.flip(array, axes) if axes else array)
    return jnp.stack(turned, 1)


def sum_orientations(array: Array, axis: int) -> Array:
    """A sum over few terms, which fuse with what makes them as a reduction over an outer axis would not."""
    first, *others = (lax.index_in_dim(array, place, axis, keepdims=False) for place in range(array.shape[axis]))
    return sum(others, start=first)


def by_direction(flips: Sequence[bool]) -> list[tuple[bool, slice]]:
    """Which orientations walk an axis forwards (False) and which backwards (True), as evenly spaced slices."""
    found = []
    for direction in (False, True):
        members = [orientation for orientation, flip in enumerate(flips) if flip == direction]
        if members:
            step = members[1] - members[0] if len(members) > 1 else 1
            found.append((direction, slice(members[0], members[-1] + 1, step)))
    return found
