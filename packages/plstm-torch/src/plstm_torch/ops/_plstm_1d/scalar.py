"""Chunkwise 1D pLSTM with scalar gates (all J = 1): quadratic inside chunks, recurrent between them."""

from __future__ import annotations

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import CarefulForm, FastForm, Tensors
from plstm_torch.ops._plstm_1d.careful import shares_rows, walk, walk_rows
from plstm_torch.ops._plstm_1d.chain import chain_backward, chain_forward
from plstm_torch.ops._plstm_1d.decay import compute_line_decay, compute_line_ends, line_decay_and_ends
from plstm_torch.ops._plstm_1d.packing import entering_state, host_positions, last_states

# Entries of the largest temporary: the masks of a piece of chunks stay in cache.
_PIECE = 1 << 18


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
        query: [B,N,C,DK], N chunks of length C.
        key: [B,N,C,DK].
        value: [B,N,C,DV].
        source: [B,N,C].
        transition: [B,N,C].
        mark: [B,N,C], scaled.
        direct: [B,N,C], scaled.
        initial_states: [B,S,DK,DV].
        starts: first chunk of each sequence [B,S].
        borders: steps at which sequences without states start [B,R]; zero gates keep them apart here.

    Returns:
        [B,N,C,DV] and the last states [B,S,DK,DV].
    """
    decay, prefix, suffix, total = line_decay_and_ends(transition)
    gating = mark.unsqueeze(-1) * decay * source.unsqueeze(-2) + torch.diag_embed(direct)
    written = (key * (source * suffix).unsqueeze(-1)).mT @ value
    state = initial_states[:, 0]
    entering, leaving = [], []
    for chunk, (total_n, written_n) in enumerate(zip(total.unbind(1), written.unbind(1), strict=True)):
        entering.append(entering_state(state, initial_states, starts, chunk))
        state = torch.addcmul(written_n, entering[-1], total_n[:, None, None])
        leaving.append(state)
    read = (query * (mark * prefix).unsqueeze(-1)) @ torch.stack(entering, 1)
    output = read + (query @ key.mT * gating) @ value
    return output, last_states(torch.stack(leaving, 1), initial_states, starts)


def _pieces(count: int, chunk: int) -> list[slice]:
    """Split `count` chunks into about equal pieces."""
    largest = max(1, _PIECE // chunk**2)
    pieces = max(1, -(-count // largest))
    size = -(-count // pieces)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)] if count else []


def _gating(decay: Tensor, source: Tensor, mark: Tensor, direct: Tensor) -> Tensor:
    gating = mark.unsqueeze(-1) * source.unsqueeze(-2)
    gating.mul_(decay).diagonal(0, 1, 2).copy_(direct)
    return gating


def _shifted(slots: Tensor, part: slice) -> Tensor:
    return slots[part.start + 1 : part.stop + 1]


def forward(
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
) -> tuple[Tensors, Tensors]:
    """`formula` by hand: no mask outlives its piece; saved are the states that enter the chunks, [B,N,DK,DV]."""
    batch, num_chunks, chunk, _ = query.shape
    flat = [tensor.flatten(0, 1) for tensor in (query, key, value, source, transition, mark, direct)]
    q, k, v, s, t, m, d = flat
    prefix, suffix, total = compute_line_ends(t)
    reading, writing = (m * prefix).unsqueeze(-1), (s * suffix).unsqueeze(-1)
    slots = q.new_empty(q.shape[0] + 1, k.shape[-1], v.shape[-1])
    output = v.new_empty(v.shape)
    for part in _pieces(q.shape[0], chunk):
        scores = torch.bmm(q[part], k[part].mT)
        scores.mul_(_gating(compute_line_decay(t[part]), s[part], m[part], d[part]))
        torch.bmm(scores, v[part], out=output[part])
        torch.bmm((k[part] * writing[part]).mT, v[part], out=_shifted(slots, part))
    last = chain_forward(slots, total.view(batch, num_chunks), initial_states, host_positions(starts))
    for part in _pieces(q.shape[0], chunk):
        output[part].baddbmm_(q[part] * reading[part], slots[part])
    return (output.view_as(value), last), (slots[:-1].unflatten(0, (batch, num_chunks)),)


def gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    """Gradients by hand: a reverse recurrence over the chunks, then every chunk on its own."""
    batch, num_chunks, chunk, _ = inputs[0].shape
    tensors = [tensor.flatten(0, 1) for tensor in inputs[:7]]
    q, t, m = tensors[0], tensors[4], tensors[5]
    d_output = cotangents[0].contiguous().flatten(0, 1)  # odd strides would send bmm into a loop
    entering = saved[0].flatten(0, 1)
    ends = compute_line_ends(t)
    reading = (m * ends[0]).unsqueeze(-1)
    slots = q.new_empty(q.shape[0] + 1, *entering.shape[1:])
    for part in _pieces(q.shape[0], chunk):
        torch.bmm((q[part] * reading[part]).mT, d_output[part], out=slots[part])
    total, starts = ends[2].view(batch, num_chunks), inputs[8]
    d_initial_states = chain_backward(slots, total, cotangents[1], host_positions(starts))
    results = tuple(tensor.new_empty(tensor.shape) for tensor in tensors)
    for part in _pieces(q.shape[0], chunk):
        local = [tensor[part] for tensor in (*tensors, *ends, entering)]
        _chunk_gradients(local, d_output[part], _shifted(slots, part), [result[part] for result in results])
    shaped = (result.view(tensor.shape) for result, tensor in zip(results, inputs, strict=False))
    return (*shaped, d_initial_states, torch.zeros_like(starts), torch.zeros_like(inputs[9]))


def _chunk_gradients(local: list[Tensor], d_output: Tensor, d_leaving: Tensor, results: list[Tensor]) -> None:
    """Gradients within chunks, given those of the output and of the leaving states; written into `results`."""
    q, k, v, s, t, m, d, prefix, suffix, _, entering = local
    d_q, d_k, d_v, d_s, d_t, d_m, d_d = results
    rows, columns = m.unsqueeze(-1), s.unsqueeze(-2)
    writing, reading = (s * suffix).unsqueeze(-1), (m * prefix).unsqueeze(-1)
    decay = compute_line_decay(t)
    gating = _gating(decay, s, m, d)
    scores = torch.bmm(q, k.mT)
    d_attention = torch.bmm(d_output, v.mT)

    attention = scores * gating
    torch.bmm(attention.mT, d_output, out=d_v)
    d_v.baddbmm_(k * writing, d_leaving)
    d_scores = torch.mul(d_attention, gating, out=attention)
    d_read = torch.bmm(d_output, entering.mT)
    d_reading = (d_read * q).sum(-1)
    torch.mul(d_read, reading, out=d_q).baddbmm_(d_scores, k)
    d_written = torch.bmm(v, d_leaving.mT)
    d_writing = (d_written * k).sum(-1)
    torch.mul(d_written, writing, out=d_k).baddbmm_(d_scores.mT, q)

    d_gating = scores.mul_(d_attention)
    d_d.copy_(d_gating.diagonal(0, 1, 2))
    masked = torch.mul(d_gating, decay, out=gating)
    torch.sum(masked * columns, -1, out=d_m).addcmul_(d_reading, prefix)
    torch.sum(masked.mul_(rows), -2, out=d_s).addcmul_(d_writing, suffix)

    # dT_k collects R[i, k] dR[i, j] R[k, j] over i > k > j; prefix, suffix and total are the borders i = C, j = -1
    d_decay = d_gating.mul_(rows).mul_(columns)
    collected = torch.bmm(decay.mT, d_decay).addcmul_(suffix.unsqueeze(-1), (d_writing * s).unsqueeze(-2))
    torch.sum(collected.mul_(decay), -1, out=d_t)
    d_t.addcmul_(prefix, (decay * (d_reading * m).unsqueeze(-1)).sum(-2))
    d_t.addcmul_(prefix * suffix, (d_leaving * entering).sum((-1, -2)).unsqueeze(-1))


def allocate(*inputs: Tensor) -> Tensors:
    """Empty output, last states and entering states."""
    _, key, value, *_, initial_states, _, _ = inputs
    entering = key.new_empty(*key.shape[:2], key.shape[-1], value.shape[-1])
    return value.new_empty(value.shape), initial_states.new_empty(initial_states.shape), entering


def careful(*inputs: Tensor) -> Tensors:
    """`formula` step by step."""
    *arrays, initial_states, starts, borders = inputs
    chunks = [array.unsqueeze(-1) for array in arrays[:3]]
    chunks += [gate.view(*gate.shape, *(1,) * axes) for gate, axes in zip(arrays[3:], (3, 2, 3, 4), strict=True)]
    output, last = walk(chunks, initial_states.unsqueeze(-1), starts, borders)
    return output.squeeze(-1), last.squeeze(-1)


plstm_1d_scalar = FastForm(
    "plstm_1d_scalar",
    formula,
    forward,
    gradients,
    allocate,
    num_outputs=2,
    careful=CarefulForm(careful, walk_rows, shares_rows),
)
