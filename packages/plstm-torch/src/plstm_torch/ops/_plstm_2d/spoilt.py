"""What is not finite, and whom it reaches: the same nodes as in the recurrence, whatever the fast forms multiply.

A gating matrix of a whole grid or block lets one NaN, or one product that overflows, reach every node of it, since zero
times NaN is NaN. Where the host may look at the numbers, it looks at the results: finite ones need no second look, and
grids with others are walked by the recurrence. Inside of `torch.compile`, of `torch.func` transforms and of CUDA graphs
nothing can be decided, so there numbers that are not finite count as zero, and what a walk would have led them to is
marked with NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from plstm_torch.ops._exporting import is_exporting
from plstm_torch.ops._fast_form import has_numbers, rows_that_are_not_finite
from plstm_torch.ops._plstm_2d.problem import Problem, Result, States, flip_each, map_gates
from plstm_torch.ops._plstm_2d.recurrent import recurrent

# Numbers in the states of all nodes, which the gradients of a walk need at once.
_STATES = 1 << 24


def isolated(problem: Problem, fast: Callable[[Problem], Result]) -> Result:
    """The result of a fast form, in which nothing that is not finite reaches what does not depend on it.

    Args:
        problem: the call; no axis is empty.
        fast: a form that is right for finite numbers.

    Returns:
        Output [B,X,Y,DV,JO], and the leaving states if the problem asks for them.
    """
    if is_exporting():  # other runtimes get the plain form
        return fast(problem)
    if torch.compiler.is_compiling() or _is_transformed() or not has_numbers(problem.query):
        return _marked(fast(_only_finite(problem)), problem)
    output, states = fast(problem)
    spoilt = rows_that_are_not_finite(tuple(tensor.detach() for tensor in (output, *(states or ()))))
    return _by_rows(problem, fast, spoilt) if spoilt.any() else (output, states)


def _is_transformed() -> bool:
    return bool(torch._C._are_functorch_transforms_active())  # type: ignore[attr-defined, unused-ignore]


def _by_rows(problem: Problem, fast: Callable[[Problem], Result], spoilt: Tensor) -> Result:
    """Rows of the batch that are spoilt by the recurrence, as many at a time as memory holds, the others as before."""
    x, y = problem.query.shape[1:3]
    jt, orientations = problem.gates.source_r.shape[4], len(problem.flips)
    numbers = orientations * x * y * problem.key.shape[3] * problem.value.shape[3] * jt
    pieces = spoilt.nonzero().squeeze(1).split(max(1, _STATES // numbers))
    whole = (~spoilt).nonzero().squeeze(1)
    found = [recurrent(_rows(problem, piece)) for piece in pieces]
    if len(whole):
        pieces, found = (*pieces, whole), [*found, fast(_rows(problem, whole))]
    order = torch.cat(pieces).argsort()
    outputs, states = zip(*found, strict=True)
    output = torch.cat(outputs).index_select(0, order)
    if not problem.return_last_state:
        return output, None
    right, bottom = (torch.cat(sides).index_select(0, order) for sides in zip(*states, strict=True))
    return output, (right, bottom)


def _rows(problem: Problem, rows: Tensor) -> Problem:
    """The problem of some rows of the batch."""
    return _map(problem, lambda tensor: tensor.index_select(0, rows))


def _only_finite(problem: Problem) -> Problem:
    """The problem with zeros for what is not finite."""
    return _map(problem, lambda tensor: torch.where(tensor.isfinite(), tensor, 0.0))


def _map(problem: Problem, function: Callable[[Tensor], Tensor]) -> Problem:
    state = problem.initial_state
    return replace(
        problem,
        query=function(problem.query),
        key=function(problem.key),
        value=function(problem.value),
        gates=map_gates(problem.gates, function),
        direct=function(problem.direct),
        initial_state=None if state is None else (function(state[0]), function(state[1])),
    )


def _marked(result: Result, problem: Problem) -> Result:
    """The result with NaN, also in the gradients, wherever the walk leads what is not finite in the problem."""
    output, states = result
    spoilt, right, bottom = _reached(problem)
    if states is not None:
        states = _multiply(states[0], right), _multiply(states[1], bottom)
    return _multiply(output, spoilt), states


def _multiply(tensor: Tensor, spoilt: Tensor) -> Tensor:
    factor = torch.where(spoilt, torch.nan, torch.ones((), dtype=tensor.dtype, device=tensor.device))
    return tensor * factor[(...,) + (None,) * (tensor.dim() - spoilt.dim())]


def _reached(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Where something arrives that is not finite: nodes [B,X,Y], right [B,O,Y] and bottom [B,O,X] side."""
    flips, gates = problem.flips, map_gates(problem.gates.with_turns(), lambda gate: _is_spoilt(gate, 4))
    inputs = _is_spoilt(problem.key, 3) | _is_spoilt(problem.value, 3)
    written = inputs.unsqueeze(1)
    right = written | gates.source_r | gates.transition_rl
    down = written | gates.source_d | gates.transition_du
    if gates.transition_ru is not None:
        right = right | gates.transition_ru
    if gates.transition_dl is not None:
        down = down | gates.transition_dl
    right, down = (flip_each(spoilt, flips, 2, 3) for spoilt in (right, down))
    left, top = _entering(problem, down.shape)
    arriving_r, arriving_d = _walk(problem, right, down, (left, top))
    own = inputs | _is_spoilt(problem.query, 3) | _is_spoilt(problem.direct, 3)
    read = flip_each(arriving_r | arriving_d, flips, 2, 3) | gates.mark_l | gates.upper_mark
    right, down = right | arriving_r, down | arriving_d
    if gates.transition_ru is not None:
        right = right | arriving_d
    if gates.transition_dl is not None:
        down = down | arriving_r
    return (
        own | read.any(1),
        flip_each(right[:, :, -1], flips, None, 2),
        flip_each(down[..., -1], flips, 2, None),
    )


def _is_spoilt(tensor: Tensor, leading: int) -> Tensor:
    """Whether anything behind the leading axes is not finite."""
    return ~tensor.isfinite().flatten(leading).all(-1)


def _entering(problem: Problem, shape: torch.Size) -> States:
    """Whether the states that enter are spoilt, as each orientation meets them: [B,O,Y] and [B,O,X]."""
    if problem.initial_state is None:
        nothing = torch.zeros(shape, dtype=torch.bool, device=problem.query.device)
        return nothing[:, :, 0], nothing[..., 0]
    left, top = (_is_spoilt(state, 3) for state in problem.initial_state)
    return flip_each(left, problem.flips, None, 2), flip_each(top, problem.flips, 2, None)


def _walk(problem: Problem, right: Tensor, down: Tensor, entering: States) -> States:
    """Whether what arrives from the left and from above is spoilt, [B,O,X,Y] in the order of the walk.

    Args:
        problem: says which transitions there are.
        right: nodes that hand on something spoilt to the right, whatever arrives.
        down: alike, down.
        entering: what enters the grid.
    """
    gates, (left, top) = problem.gates.with_turns(), entering

    def moved_right(spoilt: Tensor) -> Tensor:
        return torch.cat([left.unsqueeze(2), spoilt[:, :, :-1]], 2)

    def moved_down(spoilt: Tensor) -> Tensor:
        return torch.cat([top.unsqueeze(3), spoilt[..., :-1]], 3)

    if gates.transition_dl is not None and gates.transition_ru is not None:  # everything right of it and below
        arriving = _since(_since(moved_right(right) | moved_down(down), 2), 3)
        return moved_right(right | arriving), moved_down(down | arriving)
    if gates.transition_dl is None:
        from_above = _since(moved_down(down), 3)
        turned = right if gates.transition_ru is None else right | from_above
        return _since(moved_right(turned), 2), from_above
    from_left = _since(moved_right(right), 2)
    return from_left, _since(moved_down(down | from_left), 3)


def _since(spoilt: Tensor, axis: int) -> Tensor:
    """Whether anything up to a place is spoilt."""
    return spoilt.cumsum(axis) > 0
