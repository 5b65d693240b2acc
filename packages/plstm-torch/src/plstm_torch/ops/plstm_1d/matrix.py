"""Chunkwise 1D pLSTM with any state-tracking dimensions: small matrices inside chunks, one product per chunk."""

from __future__ import annotations

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import FastForm, Tensors
from plstm_torch.ops.plstm_1d.matrix_segment import run_segment, segment_gradients, segment_output

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
    initial_state: Tensor,
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
        initial_state: [B,JT,DK,DV].

    Returns:
        [B,N,C,DV,JO] and [B,JT,DK,DV].
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
    written = keys.mT.unsqueeze(1) @ written_values.flatten(2, 3)
    entering, last_state = _chain(total, written, initial_state, batch)
    read = (queries.unsqueeze(1) @ entering).unflatten(2, (chunk, dim_q))
    output = output + torch.einsum("nioqa,naiqd->niod", mark_start, read)
    return output.mT.unflatten(0, (batch, num_chunks)), last_state


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


def _chain(total: Tensor, written: Tensor, initial_state: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """States that enter the chunks [n,JT,DK,DV], and the last one [B,JT,DK,DV]."""
    state, states = initial_state.flatten(2), []
    totals, writtens = (x.unflatten(0, (batch, -1)).unbind(1) for x in (total, written.flatten(2)))
    for total_n, written_n in zip(totals, writtens, strict=True):
        states.append(state)
        state = torch.baddbmm(written_n, total_n, state)
    entering = torch.stack(states, 1).flatten(0, 1).view_as(written)
    return entering, state.view_as(initial_state)


def _segments(batch: int, num_chunks: int, chunk: int) -> list[slice]:
    """Split the chunks of every sequence into about equal segments."""
    largest = max(_LEAST_CHUNKS, _SEGMENT // (chunk * max(1, batch)))
    size = -(-num_chunks // -(-num_chunks // largest))
    return [slice(start, min(start + size, num_chunks)) for start in range(0, num_chunks, size)]


def _take(tensor: Tensor, part: slice) -> Tensor:
    """The chunks of a segment, chunks before batch: the recurrence between them then runs over contiguous states."""
    return tensor[:, part].transpose(0, 1)


def _put(tensor: Tensor, part: slice, chunks: Tensor) -> None:
    target = _take(tensor, part)
    target.copy_(chunks.view_as(target))


def forward(*inputs: Tensor) -> tuple[Tensors, Tensors]:
    """`formula` segment by segment; saved are the states between the segments, [B,G,JT,DK,DV]."""
    *tensors, state = inputs
    value, mark = tensors[2], tensors[5]
    output = value.new_empty(*value.shape[:4], mark.shape[3])
    states = []
    for part in _segments(*value.shape[:3]):
        states.append(state)
        segment = run_segment([_take(tensor, part) for tensor in tensors], state)
        _put(output, part, segment_output(segment))
        state = segment.states[-1]
    return (output, state.clone()), (torch.stack(states, 1),)


def gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    """Gradients segment by segment from the last to the first, each recomputed from the state that enters it."""
    *tensors, _ = inputs
    d_output, d_state = cotangents
    results = [tensor.new_empty(tensor.shape) for tensor in tensors]
    segments = _segments(*inputs[0].shape[:3])
    for part, state in zip(reversed(segments), reversed(saved[0].unbind(1)), strict=True):
        segment = run_segment([_take(tensor, part) for tensor in tensors], state)
        found, d_state = segment_gradients(segment, _take(d_output, part), d_state)
        for result, gradient in zip(results, found, strict=True):
            _put(result, part, gradient)
    return (*results, d_state.clone())


def allocate(*inputs: Tensor) -> Tensors:
    """Empty output, last state and states between the segments."""
    value, mark, state = inputs[2], inputs[5], inputs[-1]
    segments = len(_segments(*value.shape[:3]))
    states = state.new_empty(state.shape[0], segments, *state.shape[1:])
    return value.new_empty(*value.shape[:4], mark.shape[3]), state.new_empty(state.shape), states


plstm_1d_matrix = FastForm("plstm_1d_matrix", formula, forward, gradients, allocate, num_outputs=2)
