"""One segment of chunks with matrix gates, forward and backward by hand. README.md derives what is computed here.

The source step j of a chunk stands last among the dimensions of masks: every other one is tiny, and elementwise
operations need a long innermost dimension.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """A segment of n = N * B chunks of C steps (chunks before batch), and what both passes derive from its inputs.

    Attributes:
        dims: n, C, JO, JQ, JK, JV, JT.
        queries: [n,C*JQ,DK].
        keys: [n,JK*C,DK].
        values: [n,JV*C,DV].
        moves: transition over mark [n,C,JT+JO*JQ,JT].
        rows: next state over output of every step, in response to the entering state and to every source (direct
            included) of the chunk [C,n,JT+JO*JQ,JT+JK*JV*C].
        scores: [n,C,JQ,JK,C].
        attention: gating times scores [n,C,JO,JV,C].
        written_values: values as they arrive at the end of the chunk [n,JT,JK,C,DV].
        states: states that enter the chunks, and the one that leaves the segment [N+1,B,JT,DK,DV].
    """

    dims: tuple[int, ...]
    queries: Tensor
    keys: Tensor
    values: Tensor
    moves: Tensor
    rows: Tensor
    scores: Tensor
    attention: Tensor
    written_values: Tensor
    states: Tensor

    @property
    def entering(self) -> Tensor:
        """States that enter the chunks [n,JT,DK,DV]."""
        return self.states[:-1].flatten(0, 1)


def run_segment(inputs: Sequence[Tensor], state: Tensor) -> Segment:
    """Everything but the output.

    Args:
        inputs: query, key, value, source, transition, mark, direct, each [N,B,C,...] as in `plstm_1d`.
        state: state that enters the segment [B,JT,DK,DV].
    """
    q, k, v, source, transition, mark, direct = inputs
    dim_o, dim_q, dim_k, dim_v = direct.shape[3:]
    chunk, dim_t = transition.shape[2], transition.shape[-1]
    queries = q.mT.flatten(2, 3).flatten(0, 1).contiguous()
    keys, values = (x.permute(0, 1, 4, 2, 3).flatten(2, 3).flatten(0, 1).contiguous() for x in (k, v))
    moves = torch.cat([transition, mark.flatten(3, 4)], 3).flatten(0, 1)
    count = moves.shape[0]
    dims = (count, chunk, dim_o, dim_q, dim_k, dim_v, dim_t)
    rows = _respond(moves, source.flatten(4))
    own = _own_entries(rows[:, :, dim_t:], dims)
    own.unflatten(0, direct.shape[:2]).copy_(direct.flatten(3, 4).flatten(4))
    _, gating, total, source_end = _split(rows, dims)

    scores = torch.bmm(queries, keys.mT).view(count, chunk, dim_q, dim_k, chunk)
    attention = scores.new_empty(count, chunk, dim_o, dim_v, chunk)
    if dim_q == dim_k == 1:
        torch.mul(gating[:, :, :, 0, 0], scores.view(count, chunk, 1, 1, chunk), out=attention)
    else:
        attention.copy_(torch.einsum("nioqkvj,niqkj->niovj", gating, scores))

    written_values = values.new_empty(count, dim_t, dim_k, chunk, values.shape[-1])
    values_at = values.view(count, 1, 1, dim_v, chunk, -1)
    _accumulate(written_values, ((source_end[:, :, :, i, :, None], values_at[:, :, :, i]) for i in range(dim_v)))
    states = keys.new_empty(source.shape[0] + 1, *state.shape)
    states[0] = state
    written = states[1:].flatten(0, 2)
    torch.bmm(_per_state(keys, dim_t).mT, written_values.view(count * dim_t, dim_k * chunk, -1), out=written)
    for before, total_n, after in _steps(states, total):
        after.baddbmm_(total_n, before)
    return Segment(dims, queries, keys, values, moves, rows, scores, attention, written_values, states)


def segment_output(segment: Segment) -> Tensor:
    """Output of a segment [n,C,DV,JO]."""
    count, chunk, dim_o, dim_q, _, _, dim_t = segment.dims
    mark_start = _split(segment.rows, segment.dims)[0]
    output = torch.bmm(segment.attention.flatten(3).flatten(1, 2), segment.values).view(count, chunk, dim_o, -1)
    read = _read(segment)
    for i in range(dim_q):
        for j in range(dim_t):
            output.addcmul_(mark_start[:, :, :, i, j, None], read[:, j, :, i, None])
    return output.mT


def segment_gradients(segment: Segment, d_output: Tensor, d_last_state: Tensor) -> tuple[list[Tensor], Tensor]:
    """Gradients of the inputs of a segment [n,C,...], and of the state that enters it.

    Args:
        segment: what `run_segment` returned.
        d_output: [N,B,C,DV,JO].
        d_last_state: [B,JT,DK,DV].
    """
    count, chunk, dim_o, dim_q, dim_k, dim_v, dim_t = segment.dims
    d_output = d_output.mT.flatten(0, 1).contiguous()  # [n,C,JO,DV]
    d_rows = torch.empty_like(segment.rows)
    d_queries, d_leaving, d_initial_state = _reading_gradients(segment, d_output, d_last_state, d_rows)
    d_keys, d_values = _attention_gradients(segment, d_output, d_queries, d_rows)
    _writing_gradients(segment, d_leaving, d_keys, d_values, d_rows)

    d_source, d_moves = _respond_gradients(segment, d_rows)
    d_direct = _own_entries(d_rows[:, :, dim_t:], segment.dims).unflatten(3, (dim_k, dim_v))
    gradients = [
        d_queries.view(count, chunk, dim_q, -1).mT,
        d_keys.view(count, dim_k, chunk, -1).permute(0, 2, 3, 1),
        d_values.view(count, dim_v, chunk, -1).permute(0, 2, 3, 1),
        d_source.unflatten(3, (dim_k, dim_v)),
        d_moves[:, :, :dim_t],
        d_moves[:, :, dim_t:].unflatten(2, (dim_o, dim_q)),
        d_direct.unflatten(2, (dim_o, dim_q)),
    ]
    return gradients, d_initial_state


def _split(rows: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Views of `Segment.rows`, or of its gradient.

    Returns:
        Mark to the chunk's start [n,C,JO,JQ,JT], gating [n,C,JO,JQ,JK,JV,C], total [n,JT,JT],
        source to the chunk's end [n,JT,JK,JV,C].
    """
    _, chunk, dim_o, dim_q, dim_k, dim_v, dim_t = dims
    outputs = rows[:, :, dim_t:].transpose(0, 1).unflatten(2, (dim_o, dim_q))
    last = rows[-1][:, :dim_t]
    gating, source_end = (part[..., dim_t:].unflatten(-1, (dim_k, dim_v, chunk)) for part in (outputs, last))
    return outputs[..., :dim_t], gating, last[..., :dim_t], source_end


def _own_entries(rows: Tensor, dims: tuple[int, ...]) -> Tensor:
    """View of the response of every step to its own source, [n,C,r,JK*JV] of [C,n,r,JT+JK*JV*C]."""
    chunk, dim_t = dims[1], dims[-1]
    return rows[..., dim_t:].unflatten(3, (-1, chunk)).diagonal(0, 0, 4).permute(0, 3, 1, 2)


def _respond(moves: Tensor, source: Tensor) -> Tensor:
    """`Segment.rows` without the direct term: a scan over the steps of all chunks; `source` [N,B,C,JT,JK*JV]."""
    chunk, dim_t, width = source.shape[2:]
    count = moves.shape[0]
    rows = moves.new_empty(chunk, count, moves.shape[2], dim_t + width * chunk)
    state = moves.new_zeros(count, dim_t, rows.shape[-1])
    state.diagonal(0, 1, 2).fill_(1)  # the entering state as it is, and no response to any source
    for step in range(chunk):
        torch.bmm(moves[:, step], state, out=rows[step])
        state = rows[step][:, :dim_t]
        state[..., dim_t + step :: chunk].unflatten(0, source.shape[:2]).copy_(source[:, :, step])
    return rows


def _respond_gradients(segment: Segment, d_rows: Tensor) -> tuple[Tensor, Tensor]:
    """The scan in reverse; returns the gradients of sources [n,C,JT,JK*JV] and moves."""
    chunk, dim_t = segment.dims[1], segment.dims[-1]
    d_moves = torch.empty_like(segment.moves)
    for step in reversed(range(chunk)):
        if step:
            before = segment.rows[step - 1][:, :dim_t]
            d_rows[step - 1][:, :dim_t] = torch.bmm(segment.moves[:, step].mT, d_rows[step])
            d_moves[:, step] = torch.bmm(d_rows[step], before.mT)
        else:
            d_moves[:, 0] = d_rows[0][..., :dim_t]
    return _own_entries(d_rows[:, :, :dim_t], segment.dims), d_moves


def _accumulate(result: Tensor, products: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Sum of a few products, written into `result`; several times faster than many tiny matrix products."""
    for index, (weight, vector) in enumerate(products):
        if index:
            result.addcmul_(weight, vector)
        else:
            torch.mul(weight, vector, out=result)


def _per_state(tensor: Tensor, dim_t: int) -> Tensor:
    """Repeat [n,r,c] for every entry of the state-tracking dimension, [n*JT,r,c]."""
    return tensor.unsqueeze(1).expand(-1, dim_t, -1, -1).flatten(0, 1)


def _steps(states: Tensor, total: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each chunk the state before it [B,JT,DK*DV], the transition over it [B,JT,JT], and the state after it."""
    each, totals = states.flatten(3).unbind(0), total.unflatten(0, (-1, states.shape[1])).unbind(0)
    return list(zip(each[:-1], totals, each[1:], strict=True))


def _read(segment: Segment) -> Tensor:
    """What each query reads from each entry of the entering state, [n,JT,C,JQ,DV]."""
    count, chunk, _, dim_q, _, _, dim_t = segment.dims
    read = torch.bmm(_per_state(segment.queries, dim_t), segment.entering.flatten(0, 1))
    return read.view(count, dim_t, chunk, dim_q, -1)


def _reading_gradients(
    segment: Segment, d_output: Tensor, d_last_state: Tensor, d_rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the queries so far, of the leaving states, and of the segment's initial state."""
    count, chunk, dim_o, dim_q, _, _, dim_t = segment.dims
    mark_start, _, total, _ = _split(segment.rows, segment.dims)
    d_mark_start, _, d_total, _ = _split(d_rows, segment.dims)
    entering, queries = segment.entering, _per_state(segment.queries, dim_t)

    read = _read(segment).permute(0, 2, 3, 1, 4).reshape(count * chunk, dim_q * dim_t, -1)
    d_mark_start.copy_(torch.bmm(d_output.flatten(0, 1), read.mT).view(count, chunk, dim_o, dim_q, dim_t))
    marks = mark_start.permute(0, 4, 1, 3, 2).unsqueeze(-2)  # [n,JT,C,JQ,1,JO]
    d_read = d_output.new_empty(count, dim_t, chunk, dim_q, d_output.shape[-1])
    _accumulate(d_read, ((marks[..., i], d_output[:, None, :, None, i]) for i in range(dim_o)))
    d_read = d_read.view(count * dim_t, chunk * dim_q, -1)
    d_states = torch.empty_like(segment.states)
    d_states[-1] = d_last_state
    torch.bmm(queries.mT, d_read, out=d_states[:-1].flatten(0, 2))
    for d_before, total_n, d_after in reversed(_steps(d_states, total)):
        d_before.baddbmm_(total_n.mT, d_after)
    d_leaving = d_states[1:].flatten(0, 1)

    d_total.copy_(torch.bmm(d_leaving.flatten(2), entering.flatten(2).mT))
    d_queries = torch.bmm(d_read, entering.flatten(0, 1).mT).view(count, dim_t, chunk * dim_q, -1).sum(1)
    return d_queries, d_leaving, d_states[0]


def _attention_gradients(
    segment: Segment, d_output: Tensor, d_queries: Tensor, d_rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of keys and values so far; adds to `d_queries`."""
    _, gating, _, _ = _split(segment.rows, segment.dims)
    _, d_gating, _, _ = _split(d_rows, segment.dims)
    d_output = d_output.flatten(1, 2)
    d_values = torch.bmm(segment.attention.flatten(3).flatten(1, 2).mT, d_output)
    d_attention = torch.bmm(d_output, segment.values.mT).view_as(segment.attention)
    d_attention = d_attention[:, :, :, None, None]  # [n,C,JO,1,1,JV,C]
    torch.mul(d_attention, segment.scores[:, :, None, :, :, None], out=d_gating)
    d_scores = (d_attention * gating).sum((2, 5)).flatten(3).flatten(1, 2)
    d_queries.baddbmm_(d_scores, segment.keys)
    return torch.bmm(d_scores.mT, segment.queries), d_values


def _writing_gradients(segment: Segment, d_leaving: Tensor, d_keys: Tensor, d_values: Tensor, d_rows: Tensor) -> None:
    """Adds to `d_keys` and `d_values`, fills what `d_rows` holds of the sources at the chunk's end."""
    count, chunk, _, _, dim_k, dim_v, dim_t = segment.dims
    _, _, _, source_end = _split(segment.rows, segment.dims)
    _, _, _, d_source_end = _split(d_rows, segment.dims)
    d_leaving = d_leaving.flatten(0, 1)

    through_keys = torch.bmm(segment.written_values.view(count * dim_t, dim_k * chunk, -1), d_leaving.mT)
    d_keys.add_(through_keys.view(count, dim_t, dim_k * chunk, -1).sum(1))
    d_written = torch.bmm(_per_state(segment.keys, dim_t), d_leaving).view_as(segment.written_values)
    d_values_at = d_values.view(count, dim_v, chunk, -1)
    for i in range(dim_t):
        for j in range(dim_k):
            d_values_at.addcmul_(source_end[:, i, j, :, :, None], d_written[:, i, j, None])
    d_written = d_written.permute(0, 3, 1, 2, 4).reshape(count * chunk, dim_t * dim_k, -1)
    values = segment.values.view(count, dim_v, chunk, -1).transpose(1, 2).reshape(count * chunk, dim_v, -1)
    d_source_end.copy_(torch.bmm(d_written, values.mT).view(count, chunk, dim_t, dim_k, dim_v).permute(0, 2, 3, 4, 1))
