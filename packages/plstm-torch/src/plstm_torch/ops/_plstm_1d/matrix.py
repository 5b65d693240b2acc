"""Chunkwise 1D pLSTM with any state-tracking dimensions: small matrices inside chunks, one product per chunk."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import CarefulForm, FastForm, Tensors
from plstm_torch.ops._plstm_1d.careful import shares_rows, walk, walk_rows
from plstm_torch.ops._plstm_1d.matrix_segment import Turns, run_segment, segment_gradients, segment_output
from plstm_torch.ops._plstm_1d.packing import entering_state, host_positions, last_states

# Tokens of the whole batch whose chunk states and masks live at once, as measured; the states between segments are kept
# for backward, so a segment has a few chunks even of a large batch.
_SEGMENT = 2048
_LEAST_CHUNKS = 8


def formula(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    source: Tensor,
    transition: Tensor,
    mark: Tensor,
    direct: Tensor,
    initial_states: Tensor,
    starts: Tensor,
    borders: Tensor,
) -> Tensors:
    """Output and last state by differentiable operations.

    Args:
        query: [B,N,C,DK,JQ], N chunks of length C.
        key: [B,N,C,DK,JK].
        value: [B,N,C,DV,JV].
        source: [B,N,C,JT,JK,JV].
        transition: [B,N,C,JT,JT].
        mark: [B,N,C,JO,JQ,JT], scaled.
        direct: [B,N,C,JO,JQ,JK,JV], scaled.
        initial_states: [B,S,JT,DV,DK]: with the keys last, all JT of them are one matrix to read and write.
        starts: first chunk of each sequence [B,S].
        borders: steps at which sequences without states start [B,R]; zero gates keep them apart here.

    Returns:
        [B,N,C,DV,JO] and the last states [B,S,JT,DV,DK].
    """
    batch, num_chunks, chunk = query.shape[:3]
    tensors = (query, key, value, source, transition, mark, direct)
    q, k, v, s, t, m, d = (tensor.flatten(0, 1) for tensor in tensors)
    (dim_o, dim_q, dim_t), (dim_k, dim_v) = m.shape[2:], s.shape[3:]

    # response[t] = [state at step t to the entering state | to each source before t]
    response = _responses(t, s.flatten(-2))
    marked = m.flatten(2, 3) @ response[:, :-1]
    mark_start = marked[..., :dim_t].unflatten(2, (dim_o, dim_q))
    gating = marked[..., dim_t:].reshape(-1, chunk, dim_o, dim_q, chunk, dim_k, dim_v)
    gating = gating + torch.diag_embed(d.movedim(1, -1), dim1=1, dim2=4)
    total = response[:, -1, :, :dim_t]
    source_end = response[:, -1, :, dim_t:].unflatten(-1, (chunk, dim_k, dim_v))

    queries, keys, values = (x.mT.flatten(1, 2) for x in (q, k, v))  # [n, C*J, D]
    scores = (queries @ keys.mT).view(-1, chunk, dim_q, chunk, dim_k)
    if dim_q == dim_k == 1:
        attention = gating[:, :, :, 0, :, 0] * scores.view(-1, chunk, 1, chunk, 1)
    else:
        attention = torch.einsum("nioqjkv,niqjk->niojv", gating, scores)
    output = (attention.flatten(3, 4).flatten(1, 2) @ values).unflatten(1, (chunk, dim_o))

    written_values = torch.einsum("najkv,njvd->najkd", source_end, values.unflatten(1, (chunk, dim_v)))
    written = written_values.flatten(2, 3).mT @ keys.unsqueeze(1)
    entering, last = _chain(total, written, initial_states, starts)
    read = (queries.unsqueeze(1) @ entering.mT).unflatten(2, (chunk, dim_q))
    output = output + torch.einsum("nioqa,naiqd->niod", mark_start, read)
    return output.mT.unflatten(0, (batch, num_chunks)), last


def _responses(transition: Tensor, source: Tensor) -> Tensor:
    """States at the steps 0..C in response to the entering state and to every source, [n,C+1,JT,JT+C*W].

    Args:
        transition: [n,C,JT,JT].
        source: [n,C,JT,W].
    """
    count, chunk, dim_t, width = source.shape
    state = torch.eye(dim_t, dtype=source.dtype, device=source.device).expand(count, dim_t, dim_t)
    states = [state]
    for transition_t, source_t in zip(transition.unbind(1), source.unbind(1), strict=True):
        state = torch.cat([transition_t @ state, source_t], -1)
        states.append(state)
    full = dim_t + chunk * width
    return torch.stack([torch.nn.functional.pad(state, (0, full - state.shape[-1])) for state in states], 1)


def _chain(total: Tensor, written: Tensor, initial_states: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """States that enter the chunks [n,JT,DV,DK], and the last ones [B,S,JT,DV,DK]."""
    initial = initial_states.flatten(3)
    state = initial[:, 0]
    entering, leaving = [], []
    totals, writtens = (x.unflatten(0, (len(starts), -1)).unbind(1) for x in (total, written.flatten(2)))
    for chunk, (total_n, written_n) in enumerate(zip(totals, writtens, strict=True)):
        entering.append(entering_state(state, initial, starts, chunk))
        state = torch.baddbmm(written_n, total_n, entering[-1])
        leaving.append(state)
    last = last_states(torch.stack(leaving, 1), initial, starts)
    return torch.stack(entering, 1).flatten(0, 1).view_as(written), last.view_as(initial_states)


def _segments(batch: int, num_chunks: int, chunk: int) -> list[slice]:
    """Split the chunks of every sequence into about equal segments."""
    largest = max(_LEAST_CHUNKS, _SEGMENT // (chunk * max(1, batch)))
    return _cut(num_chunks, -(-num_chunks // largest))


def _cut(num_chunks: int, count: int) -> list[slice]:
    """At most so many segments."""
    size = -(-num_chunks // count)
    return [slice(start, min(start + size, num_chunks)) for start in range(0, num_chunks, size)]


def _take(tensor: Tensor, part: slice) -> Tensor:
    """The chunks of a segment, chunks before batch: the recurrence between them then runs over contiguous states."""
    return tensor[:, part].transpose(0, 1)


def _put(tensor: Tensor, part: slice, chunks: Tensor) -> None:
    target = _take(tensor, part)
    target.copy_(chunks.view_as(target))


def _turns(starts: list[int], part: slice, num_chunks: int) -> Turns:
    """Where sequences start and end in a segment, given the first chunk of each."""
    low, high = bisect_left(starts, part.start), bisect_left(starts, part.stop)
    after = [*starts[1:], num_chunks]  # of the chunks that sequences end with
    first, last = bisect_right(after, part.start), bisect_right(after, part.stop)
    return Turns(
        begins=[start - part.start for start in starts[low:high]],
        started=slice(low, high),
        ends=[end - 1 - part.start for end in after[first:last]],
        ended=slice(first, last),
    )


def forward(*inputs: Tensor) -> tuple[Tensors, Tensors]:
    """`formula` segment by segment; saved are the states that enter the segments, [B,G,JT,DV,DK]."""
    *tensors, initial_states, starts, _ = inputs
    value, mark = tensors[2], tensors[5]
    output = value.new_empty(*value.shape[:4], mark.shape[3])
    last_states = initial_states.new_empty(initial_states.shape)
    entering, state, firsts = [], initial_states[:, 0], host_positions(starts)
    for part in _segments(*value.shape[:3]):
        entering.append(state)
        turns = _turns(firsts, part, value.shape[1])
        chunks = [_take(tensor, part) for tensor in tensors]
        segment, last_states[:, turns.ended] = run_segment(chunks, state, initial_states[:, turns.started], turns)
        _put(output, part, segment_output(segment))
        state = segment.states[-1]
    return (output, last_states), (torch.stack(entering, 1),)


def gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    """Gradients segment by segment from the last to the first, each recomputed from the state that enters it."""
    *tensors, initial_states, starts, borders = inputs
    d_output, d_last = cotangents
    results = [tensor.new_empty(tensor.shape) for tensor in tensors]
    d_initial, firsts = torch.empty_like(d_last, memory_format=torch.contiguous_format), host_positions(starts)
    # those of the forward pass, whose batch may have been smaller: a batch of cotangents is merged into it
    segments = _cut(inputs[0].shape[1], saved[0].shape[1])
    d_state = d_last[:, -1]
    for part, state in zip(reversed(segments), reversed(saved[0].unbind(1)), strict=True):
        turns = _turns(firsts, part, inputs[0].shape[1])
        chunks = [_take(tensor, part) for tensor in tensors]
        segment, _ = run_segment(chunks, state, initial_states[:, turns.started], turns)
        found, d_state, d_initial[:, turns.started] = segment_gradients(
            segment, _take(d_output, part), d_state, d_last[:, turns.ended]
        )
        for result, gradient in zip(results, found, strict=True):
            _put(result, part, gradient)
    return (*results, d_initial, torch.zeros_like(starts), torch.zeros_like(borders))


def allocate(*inputs: Tensor) -> Tensors:
    """Empty output, last states and states that enter the segments."""
    value, mark, states = inputs[2], inputs[5], inputs[7]
    segments = len(_segments(*value.shape[:3]))
    entering = states.new_empty(states.shape[0], segments, *states.shape[2:])
    return value.new_empty(*value.shape[:4], mark.shape[3]), states.new_empty(states.shape), entering


def careful(*inputs: Tensor) -> Tensors:
    """`formula` step by step."""
    *chunks, initial_states, starts, borders = inputs
    output, last = walk(chunks, initial_states.permute(0, 1, 4, 3, 2), starts, borders)
    return output, last.permute(0, 1, 4, 3, 2)


plstm_1d_matrix = FastForm(
    "plstm_1d_matrix",
    formula,
    forward,
    gradients,
    allocate,
    num_outputs=2,
    careful=CarefulForm(careful, walk_rows, shares_rows),
)
