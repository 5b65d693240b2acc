"""The recurrence in compiled kernels for CPUs, node by node, whatever the size of the grid."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

import plstm_native
from plstm_torch.ops._fast_form import FastForm, Tensors
from plstm_torch.ops._native import addresses, dtype_name, unsupported
from plstm_torch.ops._plstm_2d.problem import FOUR_ORIENTATIONS, ONE_ORIENTATION, Flips, Gates, Problem, Result
from plstm_torch.ops._plstm_2d.recurrent import recurrent

_OP = "the 2D op"
_NAMES = tuple(field.name for field in fields(Gates))


def without_native_kernels(problem: Problem) -> str | None:
    """Why the kernels cannot take a call, None if they can."""
    gates = problem.gates
    sizes = dict(zip(("JT", "JK", "JV"), gates.source_r.shape[4:], strict=True))
    sizes |= dict(zip(("JO", "JQ"), gates.mark_l.shape[4:6], strict=True))
    return unsupported(_OP, problem.query, sizes)


def native(problem: Problem) -> Result:
    """Runs the op; scalar gates, no axis empty.

    Args:
        problem: the call.

    Returns:
        Output [B, X, Y, DV, 1], and the leaving states if the problem asks for them.
    """
    present = {
        name: gate[..., 0, 0, 0] if gate.dim() == 7 else gate[..., 0, 0] for name, gate in _present(problem.gates)
    }
    vectors = problem.query[..., 0], problem.key[..., 0], problem.value[..., 0], problem.direct[..., 0, 0, 0, 0]
    with_states = problem.initial_state is not None or problem.return_last_state
    states = [state[..., 0] for state in problem.initial_state or problem.zero_state()] if with_states else []
    output, *leaving = _FORMS[tuple(present), with_states](*vectors, *present.values(), *states)
    if not problem.return_last_state:
        return output.unsqueeze(-1), None
    right, bottom = leaving
    return output.unsqueeze(-1), (right.unsqueeze(-1), bottom.unsqueeze(-1))


def _present(gates: Gates) -> list[tuple[str, Tensor]]:
    return [(name, gate) for name, gate in vars(gates).items() if gate is not None]


class _Call:
    """The tensors of a call by name, laid out for the kernels."""

    def __init__(self, names: tuple[str, ...], mode: str, tensors: Tensors) -> None:
        self.given = {name: tensor.contiguous() for name, tensor in zip(names, tensors, strict=True)}
        query, value, orientations = self.given["query"], self.given["value"], self.given["source_r"].shape[1]
        self.dv, self.dtype = value.shape[-1], dtype_name(query)
        batch, x, y, dk = query.shape
        self.sizes = plstm_native.GridSizes(
            dtype=self.dtype, batch=batch, flips=_flips(orientations), x=x, y=y, dk=dk,
            dv=-(-self.dv // plstm_native.lanes(self.dtype)) * plstm_native.lanes(self.dtype), mode=mode,
            threads=torch.get_num_threads(),
        )  # fmt: skip
        self.padded = {name: self.pad(name, tensor) for name, tensor in self.given.items()}

    def pad(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor whose columns of values fill whole slices."""
        if name not in ("value", "left", "top") or tensor.shape[-1] == self.sizes.dv:
            return tensor
        return pad(tensor, (0, self.sizes.dv - self.dv))

    def unpad(self, tensor: Tensor) -> Tensor:
        return tensor if tensor.shape[-1] == self.dv else tensor[..., : self.dv].contiguous()

    def result(self, name: str) -> Tensor:
        """An empty tensor for what has the shape of an argument, with an axis of parts if it is summed over walks."""
        like = self.padded[name]
        return like.new_empty(like.shape if name in ("left", "top") else (self.sizes.parts, *like.shape))

    def finished(self, name: str, found: Tensor) -> Tensor:
        """What `result` made, as it leaves: summed over the parts, without the columns that were filled up."""
        if name not in ("left", "top"):
            found = found[0] if len(found) == 1 else found.sum(0)
        return self.unpad(found) if name in ("value", "left", "top") else found


def _forward(*tensors: Tensor, names: tuple[str, ...], mode: str) -> tuple[Tensors, Tensors]:
    call = _Call(names, mode, tensors)
    leaving = {"right": "left", "bottom": "top"} if "left" in call.given else {}
    results = {"output": "value", **leaving}
    found = {name: call.result(like) for name, like in results.items()}
    plstm_native.grid_forward(call.sizes, addresses(call.padded | found))
    return tuple(call.finished(like, found[name]) for name, like in results.items()), ()


def _gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors, names: tuple[str, ...], mode: str) -> Tensors:
    call = _Call(names, mode, inputs)
    likes = ("value", "left", "top")[: len(cotangents)]
    given = {
        f"d_{name}": call.pad(like, cotangent.contiguous())
        for name, like, cotangent in zip(("output", "right", "bottom"), likes, cotangents, strict=False)
    }
    found = {name: call.result(name) for name in names}
    plstm_native.grid_gradients(
        call.sizes, addresses(call.padded | given | {f"d_{name}": tensor for name, tensor in found.items()})
    )
    return tuple(call.finished(name, tensor) for name, tensor in found.items())


def _formula(*tensors: Tensor, names: tuple[str, ...]) -> Tensors:
    """The same in operations of torch, for derivatives of derivatives."""
    given: dict[str, Any] = dict(zip(names, tensors, strict=True))
    gates: dict[str, Any] = {
        name: None if given.get(name) is None else _with_ones(name, given[name]) for name in _NAMES
    }
    state = (given["left"].unsqueeze(-1), given["top"].unsqueeze(-1)) if "left" in given else None
    query, key, value = (given[name].unsqueeze(-1) for name in ("query", "key", "value"))
    problem = Problem(
        query, key, value, Gates(**gates), given["direct"][..., None, None, None, None],
        _flips(given["source_r"].shape[1]), state, state is not None,
    )  # fmt: skip
    output, leaving = recurrent(problem, plain=True)
    return (output[..., 0], *(side[..., 0] for side in leaving or ()))


def _with_ones(name: str, gate: Tensor) -> Tensor:
    return gate[..., None, None] if name.startswith("transition") else gate[..., None, None, None]


def _flips(orientations: int) -> Flips:
    return ONE_ORIENTATION if orientations == 1 else FOUR_ORIENTATIONS


def _allocate(*tensors: Tensor, names: tuple[str, ...]) -> Tensors:
    given = dict(zip(names, tensors, strict=True))
    return tuple(given[name].new_empty(given[name].shape) for name in ("value", "left", "top") if name in given)


def _form(mode: str, with_states: bool) -> tuple[tuple[tuple[str, ...], bool], FastForm]:
    present = plstm_native.gates_of(mode)
    gates = tuple(name for name in _NAMES if name in present)
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
