"""Launches the kernels of P-mode, as a form that composes with every transform of torch."""

from __future__ import annotations

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import CarefulForm, FastForm, Tensors
from plstm_torch.ops._plstm_1d.decay import line_decay
from plstm_torch.ops._plstm_2d.triton.call import (
    GridCall,
    allocate,
    masked_attention,
    padded,
    rows_of_walk,
    walk,
)

GATES = ("source_r", "source_d", "transition_rl", "transition_du", "mark_l")
# Programs for each multiprocessor in the kernel that keeps its walks in memory, twice as many as run at once: the last
# ones to end leave less of the device idle, and the memory is bounded.
_PROGRAMS = 4
_MULTIPROCESSORS_IN_TESTS = 1


def gating_matrix(gates: Tensors, direct: Tensor) -> Tensor:
    """The mask of all pairs of nodes, in operations that can be differentiated at will: the walk of `directed.py`.

    Args:
        gates: `GATES`, each [B,O,X,Y].
        direct: [B,X,Y].

    Returns:
        [B,X,Y,X,Y], targets first.
    """
    batch, ways, x, y = gates[0].shape
    eye = torch.eye(x, dtype=direct.dtype, device=direct.device)
    columns = list((eye[:, None, :, None] * torch.diag_embed(direct).unsqueeze(3)).unbind(3))
    for o in range(ways):
        source_r, source_d, across, down, mark = (gate[:, o] for gate in gates)
        decay = line_decay(down)
        decay = decay.mT if o & 2 else decay
        carry = direct.new_zeros(batch, x, y, y)
        for u in range(x) if o & 1 else reversed(range(x)):
            own = eye[u].view(-1, 1, 1) * torch.diag_embed(mark[:, u]).unsqueeze(1)
            state = carry * across[:, u, None, None] + own
            moved = state @ decay[:, u].unsqueeze(1)
            columns[u] = columns[u] + carry * source_r[:, u, None, None] + moved * source_d[:, u, None, None]
            carry = state + down[:, u, None, None] * moved
    return torch.stack(columns, 3)


def formula(*inputs: Tensor) -> Tensors:
    """Output by differentiable operations; arguments as of `forward`."""
    return masked_attention(inputs, gating_matrix(inputs[3:8], inputs[8]))


def forward(*inputs: Tensor) -> tuple[Tensors, Tensors]:
    """Output [B,X,Y,DV]; nothing is saved.

    Args:
        inputs: query, key [B,X,Y,DK], value [B,X,Y,DV] of one dtype; `GATES` [B,O,X,Y] and direct [B,X,Y] in float32,
            or all in float64.

    Returns:
        The output in a tuple, and an empty tuple.
    """
    from plstm_torch.ops._plstm_2d.triton import directed

    call, (output,) = GridCall(inputs), allocate(*inputs)
    launch = call.launch("grid_directed_output")
    numbers = call.numbers("ACC", "OPERAND", "VALUES", "EXACT", "SPLIT")
    with call.on_device():
        turned = decay_table(call, turned=True)
        directed.directed_output[call.grid(launch, call.channels[1])](
            *call.vectors, *call.gates, turned, output, *call.strides, *call.sizes, **launch, **numbers
        )
    return (output,), ()


def gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    """The gradients of all inputs."""
    from plstm_torch.ops._plstm_2d.triton import directed

    call, grad = GridCall(inputs), cotangents[0]
    d_query, d_key, d_value = (tensor.new_empty(tensor.shape) for tensor in inputs[:3])
    d_mark, d_direct = (tensor.new_empty(tensor.shape) for tensor in inputs[7:])
    strides, numbers = (*call.strides, *grad.stride()), call.numbers("ACC", "OPERAND", "VALUES", "EXACT")
    with call.on_device():
        arguments = (*call.vectors, grad, *call.gates)
        turned, decays = decay_table(call, turned=True), decay_table(call, turned=False)
        launch = call.launch("grid_directed_targets")
        shares = min(launch["tiles"], -(-_PROGRAMS * _multiprocessors(grad.device) // call.batch))
        grid = (call.batch * shares, -(-call.channels[0] // launch["BLOCK"]))
        of_gates = call.gates[0].new_zeros(4, shares, *call.gates[0].shape)
        nodes = launch["XB"] * launch["YP"]
        carries = call.gates[0].new_empty(grid[0] * grid[1], call.x, 2, nodes, launch["YP"])
        directed.directed_targets[grid](
            *arguments, turned, decays, d_query, of_gates, d_mark, d_direct, carries, *strides, *call.sizes,
            shares=shares, **launch, **numbers,
        )  # fmt: skip
        launch = call.launch("grid_directed_sources")
        directed.directed_sources[call.grid(launch, max(call.channels))](
            *arguments, decays, d_key, d_value, *strides, *call.sizes, **launch, **numbers
        )
        of_lines = [shared.sum(0) for shared in of_gates]  # each by itself, since no two may share memory
    return (d_query, d_key, d_value, *of_lines, d_mark, d_direct)


def decay_table(call: GridCall, *, turned: bool) -> Tensor:
    """R of every column [B,O,X,YP,YP], or its transpose."""
    from plstm_torch.ops._plstm_2d.triton import directed

    down, yp = call.gates[3], padded(call.y)
    decays = down.new_empty(*down.shape[:3], yp, yp)
    directed.decay_table[(call.batch * call.x,)](
        down, decays, call.x, call.y, call.ways, yp, turned, **call.options("grid_directed_table", yp)
    )
    return decays


def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return _MULTIPROCESSORS_IN_TESTS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def careful(*inputs: Tensor) -> Tensors:
    """Output node by node."""
    return walk(inputs, GATES)


directed_kernels = FastForm(
    "grid_directed_triton", formula, forward, gradients, allocate, 1, CarefulForm(careful, rows_of_walk)
)
