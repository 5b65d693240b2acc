"""Launches the kernels of D-mode, chirality L, as a form that composes with every transform of torch."""

from __future__ import annotations

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import CarefulForm, FastForm, Tensors
from plstm_torch.ops._plstm_2d.triton.call import (
    GridCall,
    allocate,
    masked_attention,
    padded,
    rows_of_walk,
    walk,
)
from plstm_torch.ops._plstm_2d.triton.tables import gating_matrix

GATES = ("source_r", "source_d", "transition_rl", "transition_du", "transition_ru", "mark_l", "mark_u")


def formula(*inputs: Tensor) -> Tensors:
    """Output by differentiable operations; arguments as of `forward`."""
    return masked_attention(inputs, gating_matrix(inputs[3:10], inputs[10]))


def forward(*inputs: Tensor) -> tuple[Tensors, Tensors]:
    """Output [B,X,Y,DV]; nothing is saved.

    Args:
        inputs: query, key [B,X,Y,DK], value [B,X,Y,DV] of one dtype; `GATES` [B,O,X,Y] and direct [B,X,Y] in float32,
            or all in float64.

    Returns:
        The output in a tuple, and an empty tuple.
    """
    from plstm_torch.ops._plstm_2d.triton import separable

    call, (output,) = GridCall(inputs), allocate(*inputs)
    launch = call.launch("grid_separable_output")
    numbers = call.numbers("ACC", "OPERAND", "VALUES", "EXACT", "SPLIT")
    with call.on_device():
        tables = mask_tables(call)
        separable.separable_output[call.grid(launch, call.channels[1])](
            *call.vectors, *tables, output, *call.strides, *call.sizes, **launch, **numbers
        )
    return (output,), ()


def gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    """The gradients of all inputs."""
    from plstm_torch.ops._plstm_2d.triton import separable

    call, grad = GridCall(inputs), cotangents[0]
    d_query, d_key, d_value = (tensor.new_empty(tensor.shape) for tensor in inputs[:3])
    numbers = call.numbers("ACC", "OPERAND", "VALUES", "EXACT")
    with call.on_device():
        tables = mask_tables(call)
        d_reading, d_turning = (torch.empty_like(table) for table in tables)
        arguments, strides = (*call.vectors, grad, *tables), (*call.strides, *grad.stride())
        launch = call.launch("grid_separable_targets")
        separable.separable_targets[call.grid(launch, call.channels[0])](
            *arguments, d_query, d_reading, *strides, *call.sizes, **launch, **numbers
        )
        launch = call.launch("grid_separable_sources")
        separable.separable_sources[call.grid(launch, max(call.channels))](
            *arguments, d_key, d_value, d_turning, *strides, *call.sizes, **launch, **numbers
        )
        of_gates = gate_gradients(call, d_reading, d_turning)
    return (d_query, d_key, d_value, *of_gates)


def mask_tables(call: GridCall) -> Tensors:
    """The tables A [B,Y,X,XP,O] and B, E [B,X,Y,O+1,YP] of `separable_mask.py`."""
    from plstm_torch.ops._plstm_2d.triton import separable_mask

    source_r, source_d, across, down, turn, mark_l, mark_u, direct = call.gates
    xp, yp = padded(call.x), padded(call.y)
    reading = direct.new_empty(call.batch, call.y, call.x, xp, call.ways)
    turning = direct.new_empty(call.batch, call.x, call.y, call.ways + 1, yp)
    sizes = (call.x, call.y, call.ways)
    separable_mask.reading_table[(call.batch * call.y,)](
        across, mark_l, reading, *sizes, xp, **call.options("grid_separable_tables", xp)
    )
    separable_mask.turning_table[(call.batch * call.x,)](
        source_r, source_d, down, turn, mark_u, direct, turning, *sizes, yp,
        **call.options("grid_separable_tables", yp),
    )  # fmt: skip
    return reading, turning


def gate_gradients(call: GridCall, d_reading: Tensor, d_turning: Tensor) -> Tensors:
    """Gradients of the gates from those of the tables.

    Args:
        call: of the gates.
        d_reading: [B,Y,X,XP,O].
        d_turning: [B,X,Y,O+1,YP].

    Returns:
        Those of `GATES`, each [B,O,X,Y], and that of direct [B,X,Y].
    """
    from plstm_torch.ops._plstm_2d.triton import separable_mask

    _, source_d, across, down, turn, mark_l, mark_u, _ = call.gates
    xp, yp = d_reading.shape[3], d_turning.shape[4]
    results = [torch.empty_like(gate) for gate in call.gates]
    d_source_r, d_source_d, d_across, d_down, d_turn, d_mark_l, d_mark_u, d_direct = results
    sizes, numbers = (call.x, call.y, call.ways), call.numbers("ACC", "EXACT")
    directions = 2 if call.ways == 4 else 1
    separable_mask.reading_gates[(call.batch * call.y, directions)](
        across, mark_l, d_reading, d_across, d_mark_l, *sizes, xp, **numbers,
        **call.options("grid_separable_gates", xp),
    )  # fmt: skip
    separable_mask.turning_gates[(call.batch * call.x, directions)](
        source_d, down, turn, mark_u, d_turning, d_source_r, d_source_d, d_down, d_turn, d_mark_u, d_direct,
        *sizes, yp, **numbers, **call.options("grid_separable_gates", yp),
    )  # fmt: skip
    return tuple(results)


def careful(*inputs: Tensor) -> Tensors:
    """Output node by node."""
    return walk(inputs, GATES)


separable_kernels = FastForm(
    "grid_separable_triton", formula, forward, gradients, allocate, 1, CarefulForm(careful, rows_of_walk)
)
