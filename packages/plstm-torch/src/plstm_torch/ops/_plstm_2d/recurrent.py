"""The recurrence itself, one antidiagonal of the grid per step: any gates, any J dimensions."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import FastForm, Tensors, formula_gradients
from plstm_torch.ops._plstm_2d.problem import Gates, Problem, Result, direct_term, flip_each, map_gates


def recurrent(problem: Problem, plain: bool = False) -> Result:
    """Walks the grid by antidiagonals; all nodes of one (and all orientations) in one step.

    Args:
        problem: the call.
        plain: in operations of torch alone, which keep the states of all nodes for the gradients.

    Returns:
        Output [B, X, Y, DV, JO], and the leaving states if the problem asks for them.
    """
    flips, orientations = problem.flips, len(problem.flips)
    gates = map_gates(problem.gates, lambda gate: flip_each(gate, flips, 2, 3).flatten(0, 1))

    def oriented(tensor: Tensor) -> Tensor:
        expanded = tensor.unsqueeze(1).expand(-1, orientations, *tensor.shape[1:])
        return flip_each(expanded, flips, 2, 3).flatten(0, 1)

    left, top = problem.initial_state or problem.zero_state()
    present = gates.present
    form = _FORMS[tuple(present)]
    output, right, bottom = (form.formula if plain else form)(
        oriented(problem.query),
        oriented(problem.key),
        oriented(problem.value),
        flip_each(left, flips, None, 2).flatten(0, 1),
        flip_each(top, flips, 2, None).flatten(0, 1),
        *present.values(),
    )
    split = (problem.query.shape[0], orientations)
    output = flip_each(output.unflatten(0, split), flips, 2, 3).sum(1) + direct_term(problem)
    if not problem.return_last_state:
        return output, None
    right = flip_each(right.unflatten(0, split), flips, None, 2)
    bottom = flip_each(bottom.unflatten(0, split), flips, 2, None)
    return output, (right, bottom)


def _diagonals(tensor: Tensor) -> tuple[Tensor, ...]:
    """Splits [B, X, Y, ...] into X + Y - 1 antidiagonals [B, X, ...]; off-grid places hold zeros."""
    x, y = tensor.shape[1:3]
    padded = torch.cat([tensor, tensor.new_zeros(tensor.shape[0], x, x, *tensor.shape[3:])], 2)
    skewed = padded.flatten(1, 2)[:, : x * (x + y - 1)].unflatten(1, (x, x + y - 1))
    return skewed.unbind(2)


def _undiagonals(diagonals: list[Tensor], x: int, y: int) -> Tensor:
    """The inverse of `_diagonals`: [B, X, Y, ...]."""
    flat = torch.stack(diagonals, 2).flatten(1, 2)
    padded = torch.cat([flat, flat.new_zeros(flat.shape[0], x, *flat.shape[2:])], 1)
    return padded.unflatten(1, (x, x + y))[:, :, :y]


def _walk(
    query: Tensor, key: Tensor, value: Tensor, left: Tensor, top: Tensor, *present: Tensor, names: tuple[str, ...]
) -> Tensors:
    """Output, right and bottom [B, ...] of one orientation, given the gates of these names."""
    given: dict[str, Any] = dict.fromkeys(_OPTIONAL) | dict(zip(names, present, strict=True))
    gates = Gates(**given).with_turns()
    x, y = query.shape[1:3]
    read_l = _diagonals(torch.einsum("bxydq,bxyoqt->bxydot", query, gates.mark_l))
    read_u = _diagonals(torch.einsum("bxydq,bxyoqt->bxydot", query, gates.upper_mark))
    write_r = _diagonals(torch.einsum("bxydk,bxytkv->bxydtv", key, gates.source_r))
    write_d = _diagonals(torch.einsum("bxydk,bxytkv->bxydtv", key, gates.source_d))
    values = _diagonals(value)
    rl, du = _diagonals(gates.transition_rl), _diagonals(gates.transition_du)
    ru = None if gates.transition_ru is None else _diagonals(gates.transition_ru)
    dl = None if gates.transition_dl is None else _diagonals(gates.transition_dl)
    entering_left, entering_top = left.split(1, 1), top.split(1, 1)
    leaving_right, leaving_bottom, outputs = [], [], []
    r, d = entering_left[0], entering_top[0]
    for s in range(x + y - 1):
        low, high = max(0, s - y + 1), min(x, s + 1)
        output = _read(read_l[s][:, low:high], r) + _read(read_u[s][:, low:high], d)
        outputs.append(torch.nn.functional.pad(output, (0, 0, 0, 0, low, x - high)))
        v = values[s][:, low:high]
        r_out = _move(rl[s][:, low:high], r) + _write(write_r[s][:, low:high], v)
        d_out = _move(du[s][:, low:high], d) + _write(write_d[s][:, low:high], v)
        if ru is not None:
            r_out = r_out + _move(ru[s][:, low:high], d)
        if dl is not None:
            d_out = d_out + _move(dl[s][:, low:high], r)
        # The node (x, y) of this step feeds (x + 1, y) and (x, y + 1) of the next one; what has no successor leaves.
        if high == x:
            leaving_right.append(r_out[:, -1:])
            r_out = r_out[:, :-1]
        if s >= y - 1:
            leaving_bottom.append(d_out[:, :1])
            d_out = d_out[:, 1:]
        r = torch.cat([entering_left[s + 1], r_out], 1) if s + 1 < y else r_out
        d = torch.cat([d_out, entering_top[s + 1]], 1) if s + 1 < x else d_out
    return _undiagonals(outputs, x, y), torch.cat(leaving_right, 1), torch.cat(leaving_bottom, 1)


def _read(weights: Tensor, state: Tensor) -> Tensor:
    return torch.einsum("bndot,bndet->bneo", weights, state)


def _move(transition: Tensor, state: Tensor) -> Tensor:
    if transition.shape[-1] == 1:
        return transition.unsqueeze(2) * state
    return torch.einsum("bnts,bndes->bndet", transition, state)


def _write(weights: Tensor, value: Tensor) -> Tensor:
    return torch.einsum("bndtv,bnev->bndet", weights, value)


def _forward(*tensors: Tensor, names: tuple[str, ...]) -> tuple[Tensors, Tensors]:
    return tuple(result.contiguous() for result in _walk(*tensors, names=names)), ()


def _allocate(query: Tensor, key: Tensor, value: Tensor, left: Tensor, top: Tensor, *present: Tensor) -> Tensors:
    heads = present[-1].shape[3]  # marks come last
    return value.new_empty(*value.shape[:4], heads), left.new_empty(left.shape), top.new_empty(top.shape)


def _form(name: str, missing: tuple[str, ...]) -> tuple[tuple[str, ...], FastForm]:
    names = tuple(field.name for field in fields(Gates) if field.name not in missing)
    walk = partial(_walk, names=names)
    return names, FastForm(name, walk, partial(_forward, names=names), formula_gradients(walk), _allocate, 3)


_OPTIONAL = ("transition_dl", "transition_ru", "mark_u")
# By the names of the gates that are there
_FORMS = dict(
    [
        _form("grid_walk", ("transition_dl", "transition_ru")),
        _form("grid_walk_dl", ("transition_ru",)),
        _form("grid_walk_ru", ("transition_dl",)),
        _form("grid_walk_dl_ru", ()),
        _form("grid_walk_directed", _OPTIONAL),
    ]
)
