"""Outputs of the chunks, each on its own, from the states that enter them.

    H_i = sum over j <= i of (Q_i · K_j) G[i, j] V_j + m_i p_i Q_i C_n

G[i, j] = m_i R[i, j] s_j for i > j, D_i for i = j. What a step does not depend on is left out by selection: scores of
later steps are dropped, not multiplied by zero. The product with V does multiply by zero, so what is not finite is
taken out of V before, and NaN set where it would have reached.
"""

import triton
import triton.language as tl

from plstm_torch.ops._plstm_1d.triton.places import chunk
from plstm_torch.ops._triton.decay import decay, prefix
from plstm_torch.ops._triton.dots import mm, mm_by_wide, mm_wide, read_tile


@triton.jit
def _weights(scores, mark, source, direct, transition, valid, C: tl.constexpr):
    """Scores ⊙ G, zero above the diagonal; gates are those of the chunk, transition a pointer to its first step."""
    i, j = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    between = scores * (mark[:, None] * decay(transition, valid, C) * source[None, :])
    return tl.where(i > j, between, tl.where(i == j, scores * direct[:, None], 0.0))


@triton.jit(do_not_specialize=["T", "N", "query_batch", "key_batch", "value_batch"])
def chunk_output(
    query, key, value, source, transition, mark, direct, entering, output, bounds, owners,
    query_batch, query_step, query_channel, key_batch, key_step, key_channel,
    value_batch, value_step, value_channel, T, N, DK, DV,
    C: tl.constexpr, BLOCK: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """One chunk and one block of the channels of the output, [B,T,DV]."""
    b, n = tl.program_id(0).to(tl.int64) // N, tl.program_id(0).to(tl.int64) % N
    first, valid = chunk(bounds, owners, n, C)
    if valid == 0:
        return
    i, iv = tl.arange(0, C), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    steps, line = i < valid, b * T + first
    query += b * query_batch + first * query_step
    key += b * key_batch + first * key_step
    value += b * value_batch + first * value_step
    entering += (b * N + n) * DK * DV
    scores, read = tl.zeros([C, C], ACC), tl.zeros([C, BLOCK], ACC)
    for d in range(0, DK, BLOCK):
        ik = d + tl.arange(0, BLOCK)
        queries = read_tile(query, i, query_step, ik, query_channel, steps, ik < DK, OPERAND)
        keys = read_tile(key, ik, key_channel, i, key_step, ik < DK, steps, OPERAND)
        state = read_tile(entering, ik, DV, iv, 1, ik < DK, iv < DV, ACC)
        scores = mm(queries, keys, scores, VALUES)
        read = mm_by_wide(queries, state, read, OPERAND, VALUES, SPLIT)
    marks = tl.load(mark + line + i, mask=steps, other=0.0)
    sources = tl.load(source + line + i, mask=steps, other=0.0)
    own = tl.load(direct + line + i, mask=steps, other=0.0)
    weights = _weights(scores, marks, sources, own, transition + line, valid, C)
    values = read_tile(value, i, value_step, iv, value_channel, steps, iv < DV, OPERAND)
    finite = tl.abs(values.to(ACC)) < float("inf")
    result = (marks * prefix(transition + line, valid, C))[:, None] * read
    result = mm_wide(weights, tl.where(finite, values, 0.0).to(OPERAND), result, OPERAND, VALUES, SPLIT)
    spoilt = tl.where(finite, 0, 1)
    if tl.max(tl.max(spoilt, 1), 0) > 0:
        result = tl.where(tl.cumsum(spoilt, 0) > 0, float("nan"), result)
    places = output + (line + i)[:, None] * DV + iv[None, :]
    tl.store(places, result.to(output.dtype.element_ty), mask=steps[:, None] & (iv < DV)[None, :])
