"""Compiled kernels for CPUs: the recurrence node by node, or masked attention whose mask they make.

Products of whole matrices run at ten times the rate of a walk, so on a small grid the quadratic form is faster, though
it does more. What the mask costs beside its products is little: it is a walk of numbers.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

import plstm_native
from plstm_torch.ops._fast_form import FastForm, Tensors, rows_that_are_not_finite
from plstm_torch.ops._native import unsupported
from plstm_torch.ops._plstm_2d.native_mask import masked, masked_gradients
from plstm_torch.ops._plstm_2d.native_walk import walk, walk_gradients
from plstm_torch.ops._plstm_2d.problem import GATE_NAMES, Gates, Problem, Result, flips_of
from plstm_torch.ops._plstm_2d.recurrent import recurrent

# Largest grids for which the quadratic form is faster, forward and backward, by the kernels' names of the modes
MASKED_NODES = {"P": 24**2, "L": 28**2, "R": 28**2, "general": 28**2, "straight": 28**2}
OP = "the 2D op"


def without_native_kernels(problem: Problem) -> str | None:
    """Why the kernels cannot take a call, None if they can."""
    gates = problem.gates
    sizes = dict(zip(("JT", "JK", "JV"), gates.source_r.shape[4:], strict=True))
    sizes |= dict(zip(("JO", "JQ"), gates.mark_l.shape[4:6], strict=True))
    return unsupported(OP, problem.query, sizes)


def native(problem: Problem) -> Result:
    """Runs the op; scalar gates, no axis empty.

    Args:
        problem: the call.

    Returns:
        Output [B, X, Y, DV, 1], and the leaving states if the problem asks for them.
    """
    gates = problem.gates.present
    present = {name: gate.squeeze((4, 5, 6) if gate.dim() == 7 else (4, 5)) for name, gate in gates.items()}
    vectors = [tensor.squeeze(4) for tensor in (problem.query, problem.key, problem.value)]
    vectors.append(problem.direct.squeeze((3, 4, 5, 6)))
    with_states = problem.initial_state is not None or problem.return_last_state
    states = [state.squeeze(-1) for state in problem.initial_state or problem.zero_state()] if with_states else []
    output, *leaving = _FORMS[tuple(present), with_states](*vectors, *present.values(), *states)
    if not problem.return_last_state:
        return output.unsqueeze(-1), None
    right, bottom = leaving
    return output.unsqueeze(-1), (right.unsqueeze(-1), bottom.unsqueeze(-1))


def _forward(*tensors: Tensor, names: tuple[str, ...], mode: str) -> tuple[Tensors, Tensors]:
    if not _is_masked(tensors[0], names, mode):
        return walk(tensors, names, mode), ()
    outputs = masked(tensors, names, mode)
    for rows in _spoilt(outputs):
        _put_right(outputs, rows, walk(_rows(tensors, rows), names, mode))
    return outputs, ()


def _gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors, names: tuple[str, ...], mode: str) -> Tensors:
    if not _is_masked(inputs[0], names, mode):
        return walk_gradients(inputs, cotangents, names, mode)
    gradients = masked_gradients(inputs, cotangents[0], names, mode)
    for rows in _spoilt(gradients):
        right = walk_gradients(_rows(inputs, rows), _rows(cotangents, rows), names, mode)
        _put_right(gradients, rows, right)
    return gradients


def _is_masked(query: Tensor, names: tuple[str, ...], mode: str) -> bool:
    return "left" not in names and query.shape[1] * query.shape[2] <= MASKED_NODES[mode]


def _spoilt(results: Tensors) -> list[Tensor]:
    """The rows of the batch in which not everything is finite, if there are any: a mask leads it everywhere."""
    spoilt = rows_that_are_not_finite(results)
    return [spoilt.nonzero().squeeze(1)] if spoilt.any() else []


def _rows(tensors: Tensors, rows: Tensor) -> Tensors:
    return tuple(tensor[rows] for tensor in tensors)


def _put_right(results: Tensors, rows: Tensor, right: Tensors) -> None:
    for result, found in zip(results, right, strict=True):
        result[rows] = torch.where(result[rows].isfinite(), result[rows], found)


def _formula(*tensors: Tensor, names: tuple[str, ...]) -> Tensors:
    """The same in operations of torch, for derivatives of derivatives."""
    given: dict[str, Any] = dict(zip(names, tensors, strict=True))
    gates: dict[str, Any] = {
        name: None if given.get(name) is None else _with_ones(name, given[name]) for name in GATE_NAMES
    }
    state = (given["left"].unsqueeze(-1), given["top"].unsqueeze(-1)) if "left" in given else None
    query, key, value = (given[name].unsqueeze(-1) for name in ("query", "key", "value"))
    problem = Problem(
        query, key, value, Gates(**gates), given["direct"][..., None, None, None, None],
        flips_of(given["source_r"].shape[1]), state, state is not None,
    )  # fmt: skip
    output, leaving = recurrent(problem, plain=True)
    return (output[..., 0], *(side[..., 0] for side in leaving or ()))


def _with_ones(name: str, gate: Tensor) -> Tensor:
    return gate[..., None, None] if name.startswith("transition") else gate[..., None, None, None]


def _allocate(*tensors: Tensor, names: tuple[str, ...]) -> Tensors:
    given = dict(zip(names, tensors, strict=True))
    return tuple(given[name].new_empty(given[name].shape) for name in ("value", "left", "top") if name in given)


def _form(mode: str, with_states: bool) -> tuple[tuple[tuple[str, ...], bool], FastForm]:
    present = plstm_native.gates_of(mode)
    gates = tuple(name for name in GATE_NAMES if name in present)
    names = ("query", "key", "value", "direct", *gates, *(("left", "top") if with_states else ()))
    form = FastForm(
        name=f"grid_native_{mode.lower()}{'_states' if with_states else ''}",
        formula=partial(_formula, names=names),
        forward=partial(_forward, names=names, mode=mode),
        gradients=partial(_gradients, names=names, mode=mode),
        allocate=partial(_allocate, names=names),
        num_outputs=3 if with_states else 1,
    )
    return (gates, with_states), form


# By the names of the gates that are there, and whether states enter and leave
_FORMS = dict(_form(mode, with_states) for mode in plstm_native.MODES for with_states in (False, True))
