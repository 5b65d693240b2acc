"""The recurrence on graphs, edge by edge, in kernels for CPUs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import plstm_native
from plstm_torch.ops._fast_form import CarefulForm, Tensors
from plstm_torch.ops._native import addresses, dtype_name
from plstm_torch.ops._plstm_graph.triton.form import levels_formula

if TYPE_CHECKING:
    from plstm_torch.ops._plstm_graph.plan import LevelSchedule

_NAMES = ("query", "key", "value", "source", "transition", "mark", "initial")


class NativeForm:
    """The same function of the same inputs as `KernelForm`, for J dimensions of 1; nothing is saved."""

    careful: CarefulForm | None = None  # a state only meets what it depends on

    def __init__(self, schedule: LevelSchedule, return_states: bool) -> None:
        self.num_outputs = 2 if return_states else 1
        self.formula: Callable[..., Tensors] = partial(levels_formula, schedule, return_states)
        self.forward: Callable[..., tuple[Tensors, Tensors]] = partial(_forward, schedule, return_states)
        self.gradients: Callable[[Tensors, Tensors, Tensors], Tensors] = partial(_gradients, schedule)


def _named(inputs: Tensors) -> dict[str, Tensor]:
    """The inputs without their J axes, which are 1: behind the others, in front of DK of a state."""
    ends = (3, 3, 3, 2, 2, 2)
    shapes = [tensor.shape[:end] for tensor, end in zip(inputs, ends, strict=False)]
    shapes += [inputs[6].shape[:2] + inputs[6].shape[3:]] if len(inputs) > len(ends) else []
    return {
        name: tensor.reshape(shape).contiguous() for name, tensor, shape in zip(_NAMES, inputs, shapes, strict=False)
    }


def _sizes(schedule: LevelSchedule, named: dict[str, Tensor]) -> plstm_native.GraphSizes:
    heads, nodes, dk = named["key"].shape
    return plstm_native.GraphSizes(
        dtype=dtype_name(named["key"]), heads=heads, nodes=nodes, edges=named["source"].shape[1],
        lines=named["transition"].shape[1], graphs=schedule.native.graphs, largest=schedule.max_edges, dk=dk,
        dv=named["value"].shape[2], threads=torch.get_num_threads(),
    )  # fmt: skip


def _forward(schedule: LevelSchedule, return_states: bool, *inputs: Tensor) -> tuple[Tensors, Tensors]:
    named = _named(inputs)
    key, value = named["key"], named["value"]
    results = {"read": torch.zeros_like(value)}
    if return_states:
        results["states"] = value.new_empty(*named["source"].shape, key.shape[2], value.shape[2])
    given = schedule.native.addresses() | addresses(named | results)
    plstm_native.graph_forward(_sizes(schedule, named), given)
    return (results["read"].unsqueeze(-1), *(states.unsqueeze(2) for states in list(results.values())[1:])), ()


def _gradients(schedule: LevelSchedule, inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    named = _named(inputs)
    results = {f"d_{name}": torch.zeros_like(tensor) for name, tensor in named.items()}
    given = {"d_read": cotangents[0].squeeze(-1).contiguous()}
    if len(cotangents) > 1:
        given["d_states"] = cotangents[1].squeeze(2).contiguous()
    found = schedule.native.addresses() | addresses(named | given | results)
    plstm_native.graph_gradients(_sizes(schedule, named), found)
    return tuple(result.view(tensor.shape) for result, tensor in zip(results.values(), inputs, strict=True))
