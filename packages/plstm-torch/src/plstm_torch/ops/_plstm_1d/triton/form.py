"""Launches the kernels, as a form that composes with every transform of torch; `matrix_form.py` those for matrices.

Query, key, value and the gradient of the output are read where they lie, whatever their strides; gates, a DK-th of
them, are laid out anew. The states that enter the chunks are computed again for the gradients: to keep them would take
more memory than the inputs do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import FastForm, Tensors
from plstm_torch.ops._plstm_1d import scalar
from plstm_torch.ops._plstm_1d.triton.matrix_form import plstm_1d_triton_matrix
from plstm_torch.ops._plstm_1d.triton.slots import formula_inputs, slot_owners
from plstm_torch.ops._triton import tuning

_FORMULA_CHUNK = 32
_SEGMENT = 8  # chunks for which a second walk pays


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
    source, _, mark, direct = call.gates
    with call.on_device():
        call.write_levels()
        states, rest = call.entering_states(last, rest=call.numbers("SPLIT")["SPLIT"])
        chunks.chunk_output[call.grid(row.block, call.sizes["DV"])](
            *call.vectors, source, mark, direct, call.levels, states, rest, output, call.bounds, call.owners,
            *call.strides, **call.sizes, **call.chunks, BLOCK=row.block,
            **call.numbers("ACC", "OPERAND", "VALUES", "SPLIT"), **row.options,
        )  # fmt: skip
    return (output, last), ()


def gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    """The gradients of all inputs; the boundaries have none."""
    call = _Call(inputs)
    grad, d_last = cotangents[0], cotangents[1].contiguous()
    results = tuple(tensor.new_empty(tensor.shape) for tensor in inputs[:8])
    d_query, d_key, d_value, *d_gates, d_initial = results
    with call.on_device():
        call.write_levels()
        states, _ = call.entering_states(torch.empty_like(call.initial), rest=False)
        query, mark = call.vectors[0], call.gates[2]
        d_states, _ = call.walk(query, grad, mark, d_last, d_initial, back=True, rest=False)
        _chunk_gradients(call, grad, states, d_states, (d_query, d_key, d_value), d_gates)
    return (*results, torch.zeros_like(inputs[8], memory_format=torch.contiguous_format))


def _chunk_gradients(
    call: _Call, grad: Tensor, states: Tensor, d_states: Tensor, d_vectors: Tensors, d_gates: Sequence[Tensor]
) -> None:
    """Write the gradients of query, key and value, and those of all gates."""
    from plstm_torch.ops._plstm_1d.triton import gradients, levels

    source, _, mark, direct = call.gates
    d_query, d_key, d_value = d_vectors
    d_source, d_transition, d_mark, d_direct = d_gates
    reading, writing = (call.initial.new_empty(call.batch, call.slots, call.chunk, 8) for _ in range(2))
    d_total = torch.empty_like(call.totals)
    given = (*call.vectors, grad, source, mark, direct, call.levels, states)
    sizes = {**call.sizes, **call.chunks, **call.numbers("ACC", "OPERAND", "VALUES")}
    strides = (*call.strides, *grad.stride())
    row = tuning.choose("sequence_gradients_read", call.dtype, grad.device)
    gradients.gradients_read[call.grid()](
        *given, d_query, d_direct, reading, call.bounds, call.owners, *strides, **sizes, BLOCK=row.block, **row.options
    )
    row = tuning.choose("sequence_gradients_write", call.dtype, grad.device)
    gradients.gradients_write[call.grid()](
        *given, d_states, d_key, d_value, writing, d_total, call.bounds, call.owners,
        *strides, **sizes, BLOCK=row.block, **row.options,
    )  # fmt: skip
    row = tuning.choose("sequence_levels", call.initial.dtype, grad.device)
    levels.gate_gradients[call.grid()](
        source, mark, call.levels, reading, writing, d_total, d_source, d_transition, d_mark, call.bounds, call.owners,
        call.sizes["T"], call.slots, **call.chunks, **row.options,
    )  # fmt: skip


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
        self.depth = self.chunk.bit_length() - 1
        self.chunks = {"C": self.chunk, "LEVELS": self.depth}
        self.batch, length = inputs[0].shape[:2]
        self.slots = length // self.chunk + self.initial.shape[1]
        self.owners = slot_owners(self.bounds, length, self.chunk)
        self.sizes = {"T": length, "N": self.slots, "DK": self.initial.shape[2], "DV": self.initial.shape[3]}
        self.strides = [stride for tensor in self.vectors for stride in tensor.stride()]
        self.levels = self.initial.new_empty(self.batch, self.slots, 2 * self.depth, self.chunk)
        self.totals = self.initial.new_empty(self.batch, self.slots)

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

    def write_levels(self) -> None:
        """Fills `levels` and `totals`."""
        from plstm_torch.ops._plstm_1d.triton import levels

        row = tuning.choose("sequence_levels", self.initial.dtype, self.initial.device)
        levels.write_levels[self.grid()](
            self.gates[1], self.levels, self.totals, self.bounds, self.owners, self.sizes["T"], self.slots,
            **self.chunks, **row.options,
        )  # fmt: skip

    def entering_states(self, last: Tensor, *, rest: bool) -> tuple[Tensor, Tensor]:
        """The states that enter the chunks, as `walk` gives them; writes the last states."""
        _, key, value = self.vectors
        return self.walk(key, value, self.gates[0], self.initial, last, back=False, rest=rest)

    def walk(
        self, vector: Tensor, other: Tensor, gate: Tensor, first: Tensor, last: Tensor, *, back: bool, rest: bool
    ) -> tuple[Tensor, Tensor]:
        """The states of all chunks [B,N,DK,DV], rounded to operands, and if `rest` what rounding leaves."""
        from plstm_torch.ops._plstm_1d.triton import states

        row = tuning.choose("sequence_states", self.dtype, last.device)
        batch, sequences, *sizes = self.initial.shape
        tiles = [-(-size // row.block) for size in sizes]
        segments = count_segments(batch * sequences * tiles[0] * tiles[1], self.slots, last.device)
        dtype = self.dtype if self.numbers("SPLIT")["SPLIT"] else last.dtype
        found = torch.empty(2 if rest else 1, batch, self.slots, *sizes, dtype=dtype, device=last.device)
        written = last.new_empty(batch, sequences, segments if segments > 1 else 0, *sizes)
        products = last.new_empty(written.shape[:3])
        given = (vector, other, gate, self.levels, self.totals)
        strides = (*vector.stride(), *other.stride())
        options = {
            **self.sizes, "S": sequences, "G": segments, **self.chunks, "BLOCK": row.block, "BACK": back,
            **self.numbers("ACC", "OPERAND", "EXACT", "SPLIT"), **row.options,
        }  # fmt: skip
        grid = (batch * sequences * segments, *tiles)
        if segments > 1:
            states.segment_states[grid](*given, written, products, self.bounds, *strides, **options)
        states.walk_states[grid](
            *given, first, found[0], found[-1], last, written, products, self.bounds, *strides, **options, REST=rest
        )
        return found[0], found[-1]


def count_segments(programs: int, chunks: int, device: torch.device) -> int:
    """In how many segments a sequence is walked: so many that two programs run on every processor.

    Args:
        programs: of a walk without segments.
        chunks: of the sequences.
        device: where the walk will run.

    Returns:
        The number, at least one.
    """
    if device.type != "cuda":
        return min(2, chunks)
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    return max(1, min(2 * processors // programs, chunks // _SEGMENT))


plstm_1d_kernels = FastForm("plstm_1d_triton", formula, forward, gradients, allocate, num_outputs=2)
