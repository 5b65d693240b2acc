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


@dataclass(frozen=True)
class Gates:
    """Gates [B, O, X, Y, ...] in image coordinates; a transition of None is zero."""

    source_r: Tensor
    source_d: Tensor
    transition_rl: Tensor
    transition_du: Tensor
    transition_dl: Tensor | None
    transition_ru: Tensor | None
    mark_l: Tensor
    mark_u: Tensor

    @property
    def mode(self) -> Mode:
        """The structure that the gates have by identity of their tensors, never by their values."""
        if self.transition_dl is None:
            return "L"
        if self.transition_ru is None:
            return "R"
        shared = self.transition_ru is self.transition_rl and self.transition_dl is self.transition_du
        return "P" if shared and self.mark_u is self.mark_l else "general"

    @property
    def is_scalar(self) -> bool:
        """Whether all of JT, JK, JV, JO and JQ are one."""
        return self.source_r.shape[4:] == (1, 1, 1) and self.mark_l.shape[4:] == (1, 1, 1)


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


def map_gates(gates: Gates, function: Callable[[Tensor], Tensor]) -> Gates:
    """Applies a function to every gate that is there, once per distinct tensor, so that shared gates stay shared."""
    done: dict[int, Tensor] = {}
    changed = {}
    for field in fields(gates):
        gate = getattr(gates, field.name)
        if gate is not None:
            if id(gate) not in done:
                done[id(gate)] = function(gate)
            changed[field.name] = done[id(gate)]
    return replace(gates, **changed)


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
            mark_l=gates.mark_u,
            mark_u=gates.mark_l,
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
