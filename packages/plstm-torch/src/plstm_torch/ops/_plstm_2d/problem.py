"""What every implementation of the 2D op works on: inputs in the compute dtype, gates with an orientation axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor

from plstm_torch.ops._contract import contract

Mode = Literal["general", "P", "L", "R"]
Flips = tuple[tuple[bool, bool], ...]
States = tuple[Tensor, Tensor]
Result = tuple[Tensor, States | None]
ONE_ORIENTATION: Flips = ((False, False),)
FOUR_ORIENTATIONS: Flips = ((False, False), (True, False), (False, True), (True, True))


@dataclass(frozen=True)
class Gates:
    """Gates [B, O, X, Y, ...] in image coordinates; a transition of None is zero.

    In P-mode what arrives from the left and from above is treated alike: `mark_u`, `transition_ru` and `transition_dl`
    are None, and `mark_l`, `transition_rl` and `transition_du` serve in their places.
    """

    source_r: Tensor
    source_d: Tensor
    transition_rl: Tensor
    transition_du: Tensor
    transition_dl: Tensor | None
    transition_ru: Tensor | None
    mark_l: Tensor
    mark_u: Tensor | None

    @property
    def mode(self) -> Mode:
        """The structure that the gates have by what is left out, never by their values or their identity."""
        if self.mark_u is None:
            return "P"
        if self.transition_dl is None:
            return "L"
        return "R" if self.transition_ru is None else "general"

    @property
    def upper_mark(self) -> Tensor:
        """The mark of what arrives from above, in every mode."""
        return self.mark_l if self.mark_u is None else self.mark_u

    def with_turns(self) -> Gates:
        """The same gates with all transitions that are not zero, as the forms for any gates need them."""
        if self.mode != "P":
            return self
        return replace(self, transition_dl=self.transition_du, transition_ru=self.transition_rl, mark_u=self.mark_l)

    @property
    def present(self) -> dict[str, Tensor]:
        """Those that are not None, by name, always in the same order."""
        gates = {name: getattr(self, name) for name in GATE_NAMES}  # the compiler of torch 2.11 knows no vars
        return {name: gate for name, gate in gates.items() if gate is not None}

    @property
    def is_scalar(self) -> bool:
        """Whether all of JT, JK, JV, JO and JQ are one."""
        return self.source_r.shape[4:] == (1, 1, 1) and self.mark_l.shape[4:] == (1, 1, 1)


GATE_NAMES = tuple(field.name for field in fields(Gates))


@dataclass(frozen=True)
class Problem:
    """One call of the op, after validation: the query is scaled, everything has the compute dtype.

    `flips[o]` says which axes (X, Y) orientation o walks backwards. Boundary states [B, O, Y or X, DK, DV, JT] are
    indexed in image coordinates, too; `left` and `top` name the upstream sides of the orientation.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    gates: Gates
    direct: Tensor
    flips: Flips
    initial_state: States | None
    return_last_state: bool

    def zero_state(self) -> States:
        """Boundary states of zeros: (left, top)."""
        batch, x, y, dk, _ = self.key.shape
        dv, jt, orientations = self.value.shape[3], self.gates.source_r.shape[4], len(self.flips)
        return (
            self.key.new_zeros(batch, orientations, y, dk, dv, jt),
            self.key.new_zeros(batch, orientations, x, dk, dv, jt),
        )


def flips_of(orientations: int) -> Flips:
    """The walking directions of one or four orientations."""
    return ONE_ORIENTATION if orientations == 1 else FOUR_ORIENTATIONS


def map_gates(gates: Gates, function: Callable[[Tensor], Tensor]) -> Gates:
    """Applies a function to every gate that is there."""
    return replace(gates, **{name: function(gate) for name, gate in gates.present.items()})


def direct_term(problem: Problem) -> Tensor:
    """What a node's own input gives its output: Q D (K ⊗ V), [B, X, Y, DV, JO]."""
    scores = contract("bxydq,bxydk->bxyqk", problem.query, problem.key)
    weights = contract("bxyqk,bxyoqkv->bxyov", scores, problem.direct)
    return contract("bxyov,bxyev->bxyeo", weights, problem.value)


def exchange_axes(problem: Problem) -> Problem:
    """The same problem with X and Y, right and down exchanged: chirality R becomes L."""
    gates = map_gates(problem.gates, lambda gate: _exchange_orientations(gate.transpose(2, 3)))
    state = problem.initial_state
    return replace(
        problem,
        query=problem.query.transpose(1, 2),
        key=problem.key.transpose(1, 2),
        value=problem.value.transpose(1, 2),
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
        direct=problem.direct.transpose(1, 2),
        initial_state=None if state is None else (_exchange_orientations(state[1]), _exchange_orientations(state[0])),
    )


def exchange_axes_of_result(result: Result) -> Result:
    """The result of a problem from that of the problem with exchanged axes."""
    output, state = result
    if state is not None:
        state = (_exchange_orientations(state[1]), _exchange_orientations(state[0]))
    return output.transpose(1, 2), state


def _exchange_orientations(tensor: Tensor) -> Tensor:
    """What walked X backwards now walks Y backwards."""
    if tensor.shape[1] == 1:
        return tensor
    return tensor.unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2)


def flip_each(tensor: Tensor, flips: Flips, x_axis: int | None, y_axis: int | None) -> Tensor:
    """Flips the spatial axes of every orientation (axis 1) that walks backwards: its own inverse."""
    if not any(fx or fy for fx, fy in flips):
        return tensor
    parts = []
    for part, (flip_x, flip_y) in zip(tensor.unbind(1), flips, strict=True):
        axes = [axis - 1 for axis, flip in ((x_axis, flip_x), (y_axis, flip_y)) if flip and axis is not None]
        parts.append(part.flip(axes) if axes else part)
    return torch.stack(parts, 1)
