"""Outputs of the chunks, each on its own, from the states that enter them.

    H_i = sum over j <= i of (Q_i · K_j) G[i, j] V_j + m_i p_i Q_i C_n

G[i, j] = m_i R[i, j] s_j for i > j, D_i for i = j. What a step does not depend on is left out by selection: scores of
later steps are dropped, not multiplied by zero. The product with V does multiply by zero, so what is not finite is
taken out of V before, and NaN set where it would have reached.
"""

import triton
import triton.language as tl

from plstm_torch.ops._plstm_1d.triton.gating import factors, grouped, reached
from plstm_torch.ops._plstm_1d.triton.places import chunk
from plstm_torch.ops._triton.decay import prefix
from plstm_torch.ops._triton.dots import mm, mm_wide, read_tile


@triton.jit(do_not_specialize=["T", "N"])
def chunk_output(
    query, key, value, source, mark, direct, levels, states, rest, output, bounds, owners,
    query_batch, query_step, query_channel, key_batch, key_step, key_channel,
    value_batch, value_step, value_channel, T, N,
    DK: tl.constexpr, DV: tl.constexpr, C: tl.constexpr, LEVELS: tl.constexpr, BLOCK: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """One chunk and one block of the channels of the output, [B,T,DV]; states that enter are `states` + `rest`."""
    b, n = tl.program_id(0).to(tl.int64) // N, tl.program_id(0).to(tl.int64) % N
    first, valid = chunk(bounds, owners, n, C)
    if valid == 0:
        return
    i, iv = tl.arange(0, C), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    steps, line = i < valid, b * T + first
    query += b * query_batch + first * query_step
    key += b * key_batch + first * key_step
    value += b * value_batch + first * value_step
    levels += (b * N + n) * 2 * LEVELS * C
    states += (b * N + n) * DK * DV
    rest += (b * N + n) * DK * DV
    scores = tl.zeros([C, C], ACC)
    for d in range(0, DK, BLOCK):
        ik = d + tl.arange(0, BLOCK)
        queries = read_tile(query, i, query_step, ik, query_channel, steps, ik < DK, OPERAND)
        keys = read_tile(key, ik, key_channel, i, key_step, ik < DK, steps, OPERAND)
        scores = mm(queries, keys, scores, VALUES)
    rows, columns = factors(levels, mark + line, source + line, direct + line, valid, C, LEVELS, True)
    weights = reached(grouped(scores, C) * (rows * columns), C, True)
    values = read_tile(value, i, value_step, iv, value_channel, steps, iv < DV, OPERAND)
    finite = tl.abs(values.to(ACC)) < float("inf")
    values = tl.where(finite, values, 0.0).to(OPERAND)
    result = mm_wide(weights, values, tl.zeros([C, BLOCK], ACC), OPERAND, VALUES, SPLIT)
    read = tl.zeros([C, BLOCK], ACC)
    for d in range(0, DK, BLOCK):
        ik = d + tl.arange(0, BLOCK)
        queries = read_tile(query, i, query_step, ik, query_channel, steps, ik < DK, OPERAND)
        read = mm(queries, read_tile(states, ik, DV, iv, 1, ik < DK, iv < DV, OPERAND), read, VALUES)
        if SPLIT:
            read = mm(queries, read_tile(rest, ik, DV, iv, 1, ik < DK, iv < DV, OPERAND), read, VALUES)
    marks = tl.load(mark + line + i, mask=steps, other=0.0)
    result += (marks * prefix(levels, i, LEVELS, LEVELS, C))[:, None] * read
    if tl.max(tl.max(tl.where(finite, 0, 1), 1), 0) > 0:
        values = read_tile(value, i, value_step, iv, value_channel, steps, iv < DV, OPERAND)
        spoilt = tl.min(tl.where(tl.abs(values.to(ACC)) < float("inf"), C, i[:, None]), 0)
        result = tl.where(i[:, None] >= spoilt[None, :], float("nan"), result)
    places = output + (line + i)[:, None] * DV + iv[None, :]
    tl.store(places, result.to(output.dtype.element_ty), mask=steps[:, None] & (iv < DV)[None, :])
