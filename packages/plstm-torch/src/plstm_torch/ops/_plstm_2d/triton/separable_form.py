"""Launches the kernels of D-mode, chirality L, as a form that composes with every transform of torch."""

from __future__ import annotations

from torch import Tensor

from plstm_torch.ops._fast_form import CarefulForm, FastForm, Tensors
from plstm_torch.ops._plstm_2d.triton.call import GridCall, allocate, masked_attention, rows_of_walk, walk
from plstm_torch.ops._plstm_2d.triton.tables import gate_gradients, gating_matrix

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
    numbers = call.numbers("ACC", "OPERAND", "VALUES", "SPLIT")
    with call.on_device():
        separable.separable_output[call.grid(launch, call.channels[1])](
            *call.vectors, *call.gates, output, *call.strides, *call.sizes, **launch, **numbers
        )
    return (output,), ()


def gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    """The gradients of all inputs."""
    from plstm_torch.ops._plstm_2d.triton import separable

    call, grad = GridCall(inputs), cotangents[0]
    d_query, d_key, d_value = (tensor.new_empty(tensor.shape) for tensor in inputs[:3])
    shape, x, y = call.gates[0].shape, call.x, call.y
    d_reading = call.gates[0].new_empty(*shape[:2], y, x, x)
    d_turning = call.gates[0].new_empty(*shape[:2], x, y, y)
    d_staying = call.gates[0].new_empty(shape[0], x, y, y)
    arguments, strides = (*call.vectors, grad, *call.gates), (*call.strides, *grad.stride())
    numbers = call.numbers("ACC", "OPERAND", "VALUES")
    with call.on_device():
        launch = call.launch("grid_separable_targets")
        separable.separable_targets[call.grid(launch, call.channels[0])](
            *arguments, d_query, d_reading, d_turning, d_staying, *strides, *call.sizes, **launch, **numbers
        )
        launch = call.launch("grid_separable_sources")
        separable.separable_sources[call.grid(launch, max(call.channels))](
            *arguments, d_key, d_value, *strides, *call.sizes, **launch, **numbers
        )
        of_gates = gate_gradients(tuple(call.gates[:7]), d_reading, d_turning, d_staying)
    return (d_query, d_key, d_value, *of_gates)


def careful(*inputs: Tensor) -> Tensors:
    """Output node by node."""
    return walk(inputs, GATES)


separable_kernels = FastForm(
    "grid_separable_triton", formula, forward, gradients, allocate, 1, CarefulForm(careful, rows_of_walk)
)
