"""Launches the kernels, as a form that composes with every transform of torch; `matrix_form.py` those for matrices.

Query, key, value and the gradient of the output are read where they lie, whatever their strides; gates, a DK-th of
them, are laid out anew. The states that enter the chunks are computed again for the gradients: to keep them would take
more memory than the inputs do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import FastForm, Tensors
from plstm_torch.ops._plstm_1d import scalar
from plstm_torch.ops._plstm_1d.triton.matrix_form import plstm_1d_triton_matrix
from plstm_torch.ops._plstm_1d.triton.slots import formula_inputs, slot_owners
from plstm_torch.ops._triton import tuning

_FORMULA_CHUNK = 32


def plstm_1d_triton(inputs: Tensors, states: Tensor, bounds: Tensor | None) -> tuple[Tensor, Tensor]:
    """Output and last states by kernels.

    Args:
        inputs: query, key, value (of one dtype), source, transition, mark (scaled), direct (scaled), shapes as in
            `plstm_1d` with JT up to `matrix_form.STATES`, B and T >= 1; gates in float32, or everything in float64.
        states: initial states [B,S,DK,DV,JT] in the dtype of the gates.
        bounds: boundaries of the S packed sequences [S+1]; None where S = 1.

    Returns:
        [B,T,DV,JO] in the dtype of value, and [B,S,DK,DV,JT].
    """
    length = inputs[0].shape[1]
    if bounds is None:
        bounds = torch.arange(2, device=states.device) * length
    if states.shape[-1] * inputs[6].shape[2:].numel() > 1:
        return plstm_1d_triton_matrix(inputs, states, bounds)
    vectors = [tensor.squeeze(-1) for tensor in inputs[:3]]
    gates = [gate.flatten(2).squeeze(-1) for gate in inputs[3:]]
    # as a constant of the batch it passes through every transform; float64 holds every length
    positions = bounds.to(torch.float64).expand(states.shape[0], -1)
    output, last = plstm_1d_kernels(*vectors, *gates, states.squeeze(-1), positions)
    return output.unsqueeze(-1), last.unsqueeze(-1)


def formula(*inputs: Tensor) -> Tensors:
    """Output and last states by differentiable operations, in the dtype of the gates; arguments as of `forward`."""
    tensors, places = formula_inputs(inputs, _FORMULA_CHUNK, 1.0)
    output, last = scalar.formula(*tensors)
    return output.flatten(1, 2)[:, places].to(inputs[2].dtype), last


def allocate(*inputs: Tensor) -> Tensors:
    """Empty output and last states."""
    query, _, value, *_, states, _ = inputs
    return value.new_empty(*query.shape[:2], value.shape[2]), states.new_empty(states.shape)


def forward(*inputs: Tensor) -> tuple[Tensors, Tensors]:
    """Output [B,T,DV] and last states [B,S,DK,DV]; nothing is saved.

    Args:
        inputs: query, key [B,T,DK], value [B,T,DV] of one dtype; source, transition, mark, direct [B,T] in the dtype of
            states; initial states [B,S,DK,DV]; boundaries of the sequences [B,S+1], the same for all of B.

    Returns:
        Both, and an empty tuple.
    """
    from plstm_torch.ops._plstm_1d.triton import chunks

    call = _Call(inputs)
    output, last = allocate(*inputs)
    row = tuning.choose("sequence_output", call.dtype, output.device)
    with call.on_device():
        entering = call.entering_states(last)
        chunks.chunk_output[call.grid(row.block, call.sizes["DV"])](
            *call.vectors, *call.gates, entering, output, call.bounds, call.owners, *call.strides, **call.sizes,
            C=call.chunk, BLOCK=row.block, **call.numbers("ACC", "OPERAND", "VALUES", "SPLIT"), **row.options,
        )  # fmt: skip
    return (output, last), ()


def gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    """The gradients of all inputs; the boundaries have none."""
    from plstm_torch.ops._plstm_1d.triton import gradients, states

    call = _Call(inputs)
    grad, d_last = cotangents[0], cotangents[1].contiguous()
    results = tuple(tensor.new_empty(tensor.shape) for tensor in inputs[:8])
    d_query, d_key, d_value, d_source, d_transition, d_mark, d_direct, d_initial = results
    query, key, value = call.vectors
    source, transition, mark, direct = call.gates
    chunks = {**call.sizes, "C": call.chunk}
    with call.on_device():
        entering = call.entering_states(torch.empty_like(call.initial))
        d_leaving = torch.empty_like(entering)
        row = tuning.choose("sequence_states", call.dtype, query.device)
        states.states_backward[call.walks(row.block)](
            query, grad, transition, mark, d_last, d_leaving, d_initial, call.bounds,
            *query.stride(), *grad.stride(), **chunks, S=call.initial.shape[1],
            BLOCK=row.block, **call.numbers("ACC", "OPERAND", "EXACT", "SPLIT"), **row.options,
        )  # fmt: skip
        row = tuning.choose("sequence_gradients_read", call.dtype, query.device)
        gradients.gradients_read[call.grid()](
            query, key, value, grad, source, transition, mark, direct, entering,
            d_query, d_transition, d_mark, d_direct, call.bounds, call.owners, *call.strides, *grad.stride(), **chunks,
            BLOCK=row.block, **call.numbers("ACC", "OPERAND", "VALUES", "EXACT"), **row.options,
        )  # fmt: skip
        row = tuning.choose("sequence_gradients_write", call.dtype, query.device)
        gradients.gradients_write[call.grid()](
            query, key, value, grad, source, transition, mark, direct, entering, d_leaving,
            d_key, d_value, d_source, d_transition, call.bounds, call.owners,
            *call.strides, *grad.stride(), **chunks,
            BLOCK=row.block, **call.numbers("ACC", "OPERAND", "VALUES"), **row.options,
        )  # fmt: skip
    return (*results, torch.zeros_like(inputs[8], memory_format=torch.contiguous_format))


class _Call:
    """What every kernel of one call is given."""

    def __init__(self, inputs: Tensors) -> None:
        self.vectors = inputs[:3]
        self.gates = [gate.contiguous() for gate in inputs[3:7]]
        self.initial = inputs[7].contiguous()
        self.bounds = inputs[8][0].long()
        self.dtype = inputs[0].dtype
        # one chunk size for all kernels of a call: the states between chunks are what they share
        self.chunk = tuning.choose("sequence_states", self.dtype, inputs[0].device).tile
        batch, length = inputs[0].shape[:2]
        self.batch, self.slots = batch, length // self.chunk + self.initial.shape[1]
        self.owners = slot_owners(self.bounds, length, self.chunk)
        self.sizes = {"T": length, "N": self.slots, "DK": self.initial.shape[2], "DV": self.initial.shape[3]}
        self.strides = [stride for tensor in self.vectors for stride in tensor.stride()]

    def on_device(self) -> Any:
        """The context in which kernels go to the device of the tensors."""
        return torch.cuda.device_of(self.initial)

    def numbers(self, *names: str) -> dict[str, Any]:
        """The dtypes and precisions that a kernel asks for."""
        from plstm_torch.ops._triton.precision import numbers

        known = numbers(self.dtype)
        return {name: known[name] for name in names}

    def grid(self, block: int = 1, channels: int = 1) -> tuple[int, int]:
        """A program for every chunk of the batch and every block of channels; only the first axis may be long."""
        return self.batch * self.slots, -(-channels // block)

    def walks(self, block: int) -> tuple[int, int, int]:
        """A program for every sequence of the batch and every tile of its state."""
        keys, values = (-(-self.sizes[name] // block) for name in ("DK", "DV"))
        return self.batch * self.initial.shape[1], keys, values

    def entering_states(self, last: Tensor) -> Tensor:
        """The states that enter the chunks [B,N,DK,DV]; writes the last states."""
        from plstm_torch.ops._plstm_1d.triton import states

        row = tuning.choose("sequence_states", self.dtype, last.device)
        entering = self.initial.new_empty(self.batch, self.slots, *self.initial.shape[2:])
        _, key, value = self.vectors
        source, transition, *_ = self.gates
        states.states_forward[self.walks(row.block)](
            key, value, source, transition, self.initial, entering, last, self.bounds,
            *key.stride(), *value.stride(), **self.sizes, S=self.initial.shape[1], C=self.chunk,
            BLOCK=row.block, **self.numbers("ACC", "OPERAND", "EXACT", "SPLIT"), **row.options,
        )  # fmt: skip
        return entering


plstm_1d_kernels = FastForm("plstm_1d_triton", formula, forward, gradients, allocate, num_outputs=2)
