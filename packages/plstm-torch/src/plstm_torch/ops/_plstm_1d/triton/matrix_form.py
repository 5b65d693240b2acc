"""Launches the scans for state-tracking matrices and the products between them, as a form for every transform.

A chunk has JT states, more numbers than its inputs, and a mask for every pair of J dimensions. So a call goes through
segments of chunks that bound both; of each segment only the state that enters it in the middle of a sequence is kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import CarefulForm, FastForm, Tensors
from plstm_torch.ops._plstm_1d import matrix
from plstm_torch.ops._plstm_1d.recurrent import plstm_1d_recurrent
from plstm_torch.ops._plstm_1d.triton.matrix_call import MatrixCall, Segment, number_of_segments
from plstm_torch.ops._plstm_1d.triton.matrix_products import (
    Responses,
    attention_gradients,
    outputs,
    reading_gradients,
    writing_gradients,
    written_states,
    written_values,
)
from plstm_torch.ops._plstm_1d.triton.slots import formula_inputs

STATES = 8  # largest JT: a program of the scans holds a column of JT numbers in the registers of one thread
_FORMULA_CHUNK = 16
# Numbers in the states of all steps, which the gradients of the walk need at once.
_WALKED = 1 << 24


def plstm_1d_triton_matrix(inputs: Tensors, states: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor]:
    """Output and last states by kernels.

    Args:
        inputs: query, key, value (of one dtype), source, transition, mark (scaled), direct (scaled), shapes as in
            `plstm_1d` with JT up to `STATES`, B and T >= 1; gates in float32, or everything in float64.
        states: initial states [B,S,DK,DV,JT] in the dtype of the gates.
        bounds: boundaries of the S packed sequences [S+1].

    Returns:
        [B,T,DV,JO] in the dtype of value, and [B,S,DK,DV,JT].
    """
    positions = bounds.to(torch.float64).expand(states.shape[0], -1)
    output, last = plstm_1d_matrix_kernels(*inputs, states.permute(0, 1, 4, 3, 2).contiguous(), positions)
    return output, last.permute(0, 1, 4, 3, 2)


def formula(*inputs: Tensor) -> Tensors:
    """Output and last states by differentiable operations, in the dtype of the gates; arguments as of `forward`."""
    transition, states = inputs[4], inputs[7]
    identity = torch.eye(transition.shape[-1], dtype=states.dtype, device=states.device)
    tensors, places = formula_inputs(inputs, _FORMULA_CHUNK, identity)
    output, last = matrix.formula(*tensors)
    return output.flatten(1, 2)[:, places].to(inputs[2].dtype), last


def allocate(*inputs: Tensor) -> Tensors:
    """Empty output, last states, and states between segments."""
    value, mark, states = inputs[2], inputs[5], inputs[7]
    between = states.new_empty(states.shape[0], number_of_segments(inputs) - 1, *states.shape[2:])
    return value.new_empty(*value.shape[:3], mark.shape[2]), states.new_empty(states.shape), between


def forward(*inputs: Tensor) -> tuple[Tensors, Tensors]:
    """Output [B,T,DV,JO] and last states [B,S,JT,DV,DK]; saved are the states between segments [B,G-1,JT,DV,DK].

    Args:
        inputs: query [B,T,DK,JQ], key [B,T,DK,JK], value [B,T,DV,JV] of one dtype; source [B,T,JT,JK,JV], transition
            [B,T,JT,JT], mark [B,T,JO,JQ,JT], direct [B,T,JO,JQ,JK,JV] in the dtype of states; initial states
            [B,S,JT,DV,DK]; boundaries of the sequences [B,S+1], the same for all of B.

    Returns:
        Outputs and saved.
    """
    _, last, between = allocate(*inputs)
    between.zero_()  # no sequence may go through a border
    call = MatrixCall(inputs, between.shape[1] + 1)
    rows = call.new_rows(inputs[2], inputs[5].shape[2])
    with call.on_device():
        for segment in call.segments:
            vectors, (responses, _) = segment.vectors(), segment.respond(keep=False)
            written = written_states(vectors, written_values(vectors, responses))
            carried, passed = _borders(between, segment)
            entering = segment.chain(responses.total, written, carried, passed, last)
            segment.put(rows, outputs(vectors, responses, entering))
    return (call.in_order(rows), last), (between,)


def gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    """The gradients of all inputs, segment by segment from the last one; the boundaries have none."""
    (between,), (d_output, d_last) = saved, (cotangents[0], cotangents[1].contiguous())
    call = MatrixCall(inputs, between.shape[1] + 1)
    rows = [call.new_rows(tensor, tensor.shape[3]) for tensor in inputs[:3]]
    d_gates, d_initial = call.new_gate_gradients(), torch.empty_like(d_last)
    d_state = torch.empty_like(d_last[:, 0], memory_format=torch.contiguous_format)
    with call.on_device():
        for segment in reversed(call.segments):
            carried, _ = _borders(between, segment)
            d_state = _segment_gradients(segment, carried, d_output, (d_last, d_state, d_initial), rows, d_gates)
    d_source, d_transition, d_mark, d_direct = d_gates
    of_gates = d_source, d_transition.sum(0), d_mark.sum(0), d_direct
    positions = torch.zeros_like(inputs[8], memory_format=torch.contiguous_format)
    return (*(call.in_order(part) for part in rows), *of_gates, d_initial, positions)


def _segment_gradients(
    segment: Segment, carried: Tensor, d_output: Tensor, d_states: Tensors, rows: list[Tensor], d_gates: Tensors
) -> Tensor:
    """Writes the gradients of a segment into `rows` (of query, key, value), `d_gates` and the initial states.

    Args:
        segment: slots and their call.
        carried: state that enters in the middle of a sequence.
        d_output: [B,T,DV,JO].
        d_states: gradients of the last states, of the state that leaves in the middle of a sequence, and those of the
            initial states, which are written.
        rows: as of `MatrixCall.new_rows`.
        d_gates: as of `MatrixCall.new_gate_gradients`.

    Returns:
        That of the state that enters in the middle of a sequence.
    """
    d_last, d_carried, d_initial = d_states
    vectors, (responses, scanned) = segment.vectors(), segment.respond(keep=True)
    arrived = written_values(vectors, responses)
    d_steps, d_passed, last = segment.take(d_output), torch.empty_like(d_carried), torch.empty_like(d_last)
    # the states that leave are known already: they go where the gradients are written next, and into `last`
    entering = segment.chain(responses.total, written_states(vectors, arrived), carried, d_passed, last)

    d_queries, d_reach, d_read = reading_gradients(vectors, responses, entering, d_steps)
    d_leaving = segment.chain_back(responses.total, d_read, d_carried, d_passed, d_last, d_initial)
    inside, d_gating = attention_gradients(vectors, responses, d_steps)
    d_keys, d_values, d_arrive, d_total = writing_gradients(vectors, responses, arrived, entering, d_leaving)
    for part, one, other in zip(rows, inside, (d_queries, d_keys, d_values), strict=True):
        segment.put(part, one + other.view_as(one))
    segment.respond_back(Responses(d_gating, d_reach, d_arrive, d_total), scanned, d_gates)
    return d_passed


def _borders(between: Tensor, segment: Segment) -> Tensors:
    """Of the states between segments those before and behind one; nothing is read or written where it has none."""
    places = segment.number - 1, segment.number
    return tuple(between[:, place] if 0 <= place < between.shape[1] else segment.call.initial[:, 0] for place in places)


def careful(*inputs: Tensor) -> Tensors:
    """The function step by step."""
    *steps, states, positions = inputs
    walked = tuple(tensor.to(states.dtype) for tensor in steps)
    output, last = plstm_1d_recurrent(walked, states.permute(0, 1, 4, 3, 2), positions[:, :-1])
    return output.to(inputs[2].dtype), last.permute(0, 1, 4, 3, 2)


def walked_rows(*inputs: Tensor) -> int:
    """Rows of the batch that are walked at once."""
    return max(1, _WALKED // max(1, inputs[0].shape[1] * inputs[7].shape[2:].numel()))


plstm_1d_matrix_kernels = FastForm(
    "plstm_1d_triton_matrix",
    formula,
    forward,
    gradients,
    allocate,
    num_outputs=2,
    careful=CarefulForm(careful, walked_rows),
)
