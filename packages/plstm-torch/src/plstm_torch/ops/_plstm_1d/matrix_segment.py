"""One segment of chunks with matrix gates, forward and backward by hand. README.md derives what is computed here.

The source step j of a chunk stands last among the dimensions of masks: every other one is tiny, and elementwise
operations need a long innermost dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from plstm_torch.ops._plstm_1d.packing import index_of


class Sizes(NamedTuple):
    """Sizes of a segment: chunks (times batch), steps of a chunk, and the state-tracking dimensions."""

    chunks: int
    chunk: int
    jo: int
    jq: int
    jk: int
    jv: int
    jt: int


class Parts(NamedTuple):
    """Views of `Segment.rows`, or of its gradient."""

    mark_start: Tensor  # mark to the chunk's start [n,C,JO,JQ,JT]
    gating: Tensor  # [n,C,JO,JQ,JK,JV,C]
    total: Tensor  # [n,JT,JT]
    source_end: Tensor  # source to the chunk's end [n,JT,JK,JV,C]


@dataclass(frozen=True)
class Turns:
    """Where a segment passes from one packed sequence to the next."""

    begins: list[int]  # chunks of the segment that a sequence starts with
    started: slice  # those sequences
    ends: list[int]  # chunks that a sequence ends with
    ended: slice  # those sequences


@dataclass(frozen=True)
class Segment:
    """A segment of n = N * B chunks of C steps (chunks before batch), and what both passes derive from its inputs.

    Attributes:
        sizes: n, C, JO, JQ, JK, JV, JT.
        queries: [n,C*JQ,DK].
        keys: [n,JK*C,DK].
        values: [n,JV*C,DV].
        moves: transition over mark [n,C,JT+JO*JQ,JT].
        rows: next state over output of every step, in response to the entering state and to every source (direct
            included) of the chunk [C,n,JT+JO*JQ,JT+JK*JV*C].
        scores: the same for all of JV [n,C,JQ,JK,JV,C]; stored, because rows of C alone are too short to multiply fast.
        attention: gating times scores [n,C,JO,JV,C].
        written_values: values as they arrive at the end of the chunk [n,C*JK,JT*DV].
        states: states that enter the chunks, and the one that leaves the segment [N+1,B,JT,DV,DK].
        turns: where sequences start and end.
    """

    sizes: Sizes
    queries: Tensor
    keys: Tensor
    values: Tensor
    moves: Tensor
    rows: Tensor
    scores: Tensor
    attention: Tensor
    written_values: Tensor
    states: Tensor
    turns: Turns

    @property
    def entering(self) -> Tensor:
        """States that enter the chunks [n,JT*DV,DK]."""
        return self.states[:-1].flatten(2, 3).flatten(0, 1)


def run_segment(inputs: Sequence[Tensor], state: Tensor, initial: Tensor, turns: Turns) -> tuple[Segment, Tensor]:
    """Everything but the output.

    Args:
        inputs: query, key, value, source, transition, mark, direct, each [N,B,C,...] as in `plstm_1d`.
        state: state that enters the segment [B,JT,DV,DK].
        initial: initial states of the sequences that start in it [B,started,JT,DV,DK].
        turns: where sequences start and end.

    Returns:
        The segment, and the last states of the sequences that end in it [B,ended,JT,DV,DK].
    """
    q, k, v, source, transition, mark, direct = inputs
    dim_o, dim_q, dim_k, dim_v = direct.shape[3:]
    chunk, dim_t = transition.shape[2], transition.shape[-1]
    queries = q.mT.flatten(2, 3).flatten(0, 1).contiguous()
    keys, values = (x.permute(0, 1, 4, 2, 3).flatten(2, 3).flatten(0, 1).contiguous() for x in (k, v))
    moves = torch.cat([transition, mark.flatten(3, 4)], 3).flatten(0, 1)
    count = moves.shape[0]
    sizes = Sizes(count, chunk, dim_o, dim_q, dim_k, dim_v, dim_t)
    rows = _respond(moves, source.flatten(4))
    own = _own_entries(rows[:, :, dim_t:], sizes)
    own.unflatten(0, direct.shape[:2]).copy_(direct.flatten(3, 4).flatten(4))
    parts = _split(rows, sizes)

    scores = torch.bmm(queries, keys.mT).view(count, chunk, dim_q, dim_k, 1, chunk)
    scores = scores.expand(-1, -1, -1, -1, dim_v, -1).contiguous()
    attention = scores.new_empty(count, chunk, dim_o, dim_v, chunk)
    if dim_q == dim_k == 1:
        torch.mul(parts.gating[:, :, :, 0, 0], scores[:, :, 0], out=attention)
    else:
        attention.copy_(torch.einsum("nioqkvj,niqkj->niovj", parts.gating, scores[..., 0, :]))

    written_values = torch.bmm(_by_step(parts.source_end), _step_values(values, sizes))
    written_values = written_values.view(count, chunk * dim_k, -1)
    states = keys.new_empty(source.shape[0] + 1, *state.shape)
    states[0] = state
    torch.bmm(written_values.mT, _step_keys(keys, sizes), out=states[1:].flatten(2, 3).flatten(0, 1))
    last = _chain(states, parts.total, initial, turns)
    segment = Segment(sizes, queries, keys, values, moves, rows, scores, attention, written_values, states, turns)
    return segment, last


def segment_output(segment: Segment) -> Tensor:
    """Output of a segment [n,C,DV,JO]."""
    count, chunk, dim_o, *_ = segment.sizes
    output = torch.bmm(segment.attention.flatten(3).flatten(1, 2), segment.values).view(count * chunk, dim_o, -1)
    output.baddbmm_(_step_marks(segment), _read(segment))
    return output.view(count, chunk, dim_o, -1).mT


def segment_gradients(
    segment: Segment, d_output: Tensor, d_state: Tensor, d_last: Tensor
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Gradients of the inputs of a segment [n,C,...], of the state that enters it, and of `initial`.

    Args:
        segment: what `run_segment` returned.
        d_output: [N,B,C,DV,JO].
        d_state: of the state that leaves the segment [B,JT,DV,DK].
        d_last: of the last states of the sequences that end in it [B,ended,JT,DV,DK].

    Returns:
        The gradients, those of the inputs in their order.
    """
    count, chunk, dim_o, dim_q, dim_k, dim_v, dim_t = segment.sizes
    d_output = d_output.mT.flatten(0, 1).contiguous()  # [n,C,JO,DV]
    d_rows = torch.empty_like(segment.rows)
    d_states = torch.empty_like(segment.states)
    d_states[-1] = d_state
    d_queries, d_leaving, d_initial = _reading_gradients(segment, d_output, d_last, d_rows, d_states)
    d_keys, d_values = _attention_gradients(segment, d_output, d_queries, d_rows)
    _writing_gradients(segment, d_leaving, d_keys, d_values, d_rows)

    d_source, d_moves = _respond_gradients(segment, d_rows)
    d_direct = _own_entries(d_rows[:, :, dim_t:], segment.sizes).unflatten(3, (dim_k, dim_v))
    gradients = [
        d_queries.view(count, chunk, dim_q, -1).mT,
        d_keys.view(count, dim_k, chunk, -1).permute(0, 2, 3, 1),
        d_values.view(count, dim_v, chunk, -1).permute(0, 2, 3, 1),
        d_source.unflatten(3, (dim_k, dim_v)),
        d_moves[:, :, :dim_t],
        d_moves[:, :, dim_t:].unflatten(2, (dim_o, dim_q)),
        d_direct.unflatten(2, (dim_o, dim_q)),
    ]
    return gradients, d_states[0], d_initial


def _split(rows: Tensor, sizes: Sizes) -> Parts:
    outputs = rows[:, :, sizes.jt :].transpose(0, 1).unflatten(2, (sizes.jo, sizes.jq))
    last = rows[-1][:, : sizes.jt]
    shape = (sizes.jk, sizes.jv, sizes.chunk)
    gating, source_end = (part[..., sizes.jt :].unflatten(-1, shape) for part in (outputs, last))
    return Parts(outputs[..., : sizes.jt], gating, last[..., : sizes.jt], source_end)


def _own_entries(rows: Tensor, sizes: Sizes) -> Tensor:
    """View of the response of every step to its own source, [n,C,r,JK*JV] of [C,n,r,JT+JK*JV*C]."""
    return rows[..., sizes.jt :].unflatten(3, (-1, sizes.chunk)).diagonal(0, 0, 4).permute(0, 3, 1, 2)


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
    chunk, dim_t = segment.sizes.chunk, segment.sizes.jt
    d_moves = torch.empty_like(segment.moves)
    for step in reversed(range(chunk)):
        if step:
            before = segment.rows[step - 1][:, :dim_t]
            d_rows[step - 1][:, :dim_t] = torch.bmm(segment.moves[:, step].mT, d_rows[step])
            d_moves[:, step] = torch.bmm(d_rows[step], before.mT)
        else:
            d_moves[:, 0] = d_rows[0][..., :dim_t]
    return _own_entries(d_rows[:, :, :dim_t], segment.sizes), d_moves


def _by_step(source_end: Tensor) -> Tensor:
    """[n,JT,JK,JV,C] to [n*C,JK*JT,JV]."""
    return source_end.permute(0, 4, 2, 1, 3).flatten(2, 3).flatten(0, 1)


def _step_keys(keys: Tensor, sizes: Sizes) -> Tensor:
    """[n,JK*C,DK] to [n,C*JK,DK]."""
    return keys.view(sizes.chunks, sizes.jk, sizes.chunk, -1).transpose(1, 2).flatten(1, 2)


def _step_values(values: Tensor, sizes: Sizes) -> Tensor:
    """[n,JV*C,DV] to [n*C,JV,DV]."""
    return values.view(sizes.chunks, sizes.jv, sizes.chunk, -1).transpose(1, 2).flatten(0, 1)


def _step_marks(segment: Segment) -> Tensor:
    """Marks to the chunk's start, [n*C,JO,JQ*JT]."""
    return _split(segment.rows, segment.sizes).mark_start.flatten(3).flatten(0, 1)


def _steps(states: Tensor, total: Tensor) -> list[tuple[int, tuple[Tensor, Tensor, Tensor]]]:
    """For each chunk the state before it [B,JT,DV*DK], the transition over it [B,JT,JT], and the state after it."""
    each, totals = states.flatten(3).unbind(0), total.unflatten(0, (-1, states.shape[1])).unbind(0)
    return list(enumerate(zip(each[:-1], totals, each[1:], strict=True)))


def _chain(states: Tensor, total: Tensor, initial: Tensor, turns: Turns) -> Tensor:
    """The recurrence between chunks, in place; returns the last states [B,ended,JT,DV,DK]."""
    begins, ends = index_of(turns.begins, states), index_of(turns.ends, states)
    initial = initial.transpose(0, 1)
    if turns.begins:
        passed = total.unflatten(0, (-1, states.shape[1]))[begins] @ initial.flatten(3)
        states[1:][begins] += passed.view_as(initial)
    starting = set(turns.begins)
    for chunk, (before, total_n, after) in _steps(states, total):
        if chunk not in starting:
            after.baddbmm_(total_n, before)
    last = states[1:][ends].clone()
    states[:-1][begins] = initial
    return last.transpose(0, 1)


def _chain_gradients(d_states: Tensor, total: Tensor, d_last: Tensor, turns: Turns) -> Tensor:
    """The recurrence in reverse, in place; returns the gradients of the initial states [B,started,JT,DV,DK]."""
    begins, ends = index_of(turns.begins, d_states), index_of(turns.ends, d_states)
    d_last = d_last.transpose(0, 1)
    if turns.ends:
        passed = total.unflatten(0, (-1, d_states.shape[1]))[ends].mT @ d_last.flatten(3)
        d_states[:-1][ends] += passed.view_as(d_last)
    ending = set(turns.ends)
    for chunk, (d_before, total_n, d_after) in reversed(_steps(d_states, total)):
        if chunk not in ending:
            d_before.baddbmm_(total_n.mT, d_after)
    d_initial = d_states[:-1][begins].clone()
    d_states[1:][ends] = d_last
    return d_initial.transpose(0, 1)


def _read(segment: Segment) -> Tensor:
    """What each query reads from each entry of the entering state, [n*C,JQ*JT,DV]."""
    sizes = segment.sizes
    return torch.bmm(segment.queries, segment.entering.mT).view(sizes.chunks * sizes.chunk, sizes.jq * sizes.jt, -1)


def _reading_gradients(
    segment: Segment, d_output: Tensor, d_last: Tensor, d_rows: Tensor, d_states: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the queries so far, of the leaving states, and of `initial`; fills `d_states`."""
    count, chunk, dim_o, dim_q, _, _, dim_t = segment.sizes
    total = _split(segment.rows, segment.sizes).total
    d_parts = _split(d_rows, segment.sizes)

    step_output = d_output.flatten(0, 1)
    found = torch.bmm(step_output, _read(segment).mT)
    d_parts.mark_start.copy_(found.view(count, chunk, dim_o, dim_q, dim_t))
    d_read = torch.bmm(_step_marks(segment).mT, step_output).view(count, chunk * dim_q, -1)
    torch.bmm(d_read.mT, segment.queries, out=d_states[:-1].flatten(2, 3).flatten(0, 1))
    d_initial = _chain_gradients(d_states, total, d_last, segment.turns)
    d_leaving = d_states[1:].flatten(0, 1)

    each = d_leaving.flatten(2), segment.entering.view(count, dim_t, -1)
    d_parts.total.copy_(torch.bmm(each[0], each[1].mT))
    return torch.bmm(d_read, segment.entering), d_leaving, d_initial


def _attention_gradients(
    segment: Segment, d_output: Tensor, d_queries: Tensor, d_rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of keys and values so far; adds to `d_queries`."""
    gating, d_gating = (_split(rows, segment.sizes).gating for rows in (segment.rows, d_rows))
    d_output = d_output.flatten(1, 2)
    d_values = torch.bmm(segment.attention.flatten(3).flatten(1, 2).mT, d_output)
    d_attention = torch.bmm(d_output, segment.values.mT).view_as(segment.attention)
    d_attention = d_attention[:, :, :, None, None]  # [n,C,JO,1,1,JV,C]
    torch.mul(d_attention, segment.scores[:, :, None], out=d_gating)
    d_scores = (d_attention * gating).sum((2, 5)).flatten(3).flatten(1, 2)
    d_queries.baddbmm_(d_scores, segment.keys)
    return torch.bmm(d_scores.mT, segment.queries), d_values


def _writing_gradients(segment: Segment, d_leaving: Tensor, d_keys: Tensor, d_values: Tensor, d_rows: Tensor) -> None:
    """Adds to `d_keys` and `d_values`, fills what `d_rows` holds of the sources at the chunk's end."""
    count, chunk, _, _, dim_k, dim_v, dim_t = segment.sizes
    source_end, d_source_end = (_split(rows, segment.sizes).source_end for rows in (segment.rows, d_rows))
    d_leaving = d_leaving.flatten(1, 2)

    through_keys = torch.bmm(segment.written_values, d_leaving).view(count, chunk, dim_k, -1)
    d_keys.view(count, dim_k, chunk, -1).add_(through_keys.transpose(1, 2))
    d_written = torch.bmm(_step_keys(segment.keys, segment.sizes), d_leaving.mT)
    d_written = d_written.view(count * chunk, dim_k * dim_t, -1)
    through_values = torch.bmm(_by_step(source_end).mT, d_written).view(count, chunk, dim_v, -1)
    d_values.view(count, dim_v, chunk, -1).add_(through_values.transpose(1, 2))
    found = torch.bmm(d_written, _step_values(segment.values, segment.sizes).mT)
    d_source_end.copy_(found.view(count, chunk, dim_k, dim_t, dim_v).permute(0, 3, 2, 4, 1))
