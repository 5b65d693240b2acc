"""Gradients inside the chunks, by two kernels: what steps read, and what they write.

With scores S = Q Kᵀ, dP = dH Vᵀ, Y = S ⊙ dP, p, f prefix and suffix of the chunk, C the state that enters it and dC the
gradient of the one that leaves:

    dQ = (dP ⊙ G) K + m p ⊙ (dH Cᵀ)        A_l[i] = sum of Y[i, j] s_j S_l[j] over the j of level l below i
    dK = (dP ⊙ G)ᵀ Q + s f ⊙ (V dCᵀ)       B_l[j] = sum of Y[i, j] m_i P_l[i] over the i of level l above j
    dV = (S ⊙ G)ᵀ dH + s f ⊙ (K dC)        dD = diag Y, and d_total = <C, dC>

with l the highest bit in which i and j differ, so that G[i, j] = m_i P_l[i] S_l[j] s_j (`decay.py`), and, for the
state as level LEVELS, A[i] = Q_i · (dH Cᵀ)_i and B[j] = K_j · (V dCᵀ)_j. `levels.py` makes of A and B the gradients of
the gates. States are read as rounded operands: C and dC are sums, and lose less by it than their factors have.

The second kernel forms every tile as [j, i] by products of its own: no accumulator is transposed.
"""

import triton
import triton.language as tl

from plstm_torch.ops._plstm_1d.triton.gating import factors, grouped, level_sums, reached, store_sums
from plstm_torch.ops._plstm_1d.triton.places import chunk
from plstm_torch.ops._triton.decay import prefix, suffix
from plstm_torch.ops._triton.dots import mm, read_tile


@triton.jit
def _product(
    left, left_step, left_channel, right, right_step, right_channel, steps, D: tl.constexpr,
    C: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """[C, C]: the product of every step of one tensor with every step of another, over D channels."""
    i, product = tl.arange(0, C), tl.zeros([C, C], ACC)
    for d in range(0, D, BLOCK):
        channels = d + tl.arange(0, BLOCK)
        rows = read_tile(left, i, left_step, channels, left_channel, steps, channels < D, OPERAND)
        columns = read_tile(right, channels, right_channel, i, right_step, channels < D, steps, OPERAND)
        product = mm(rows, columns, product, VALUES)
    return product


@triton.jit(do_not_specialize=["T", "N"])
def gradients_read(
    query, key, value, grad, source, mark, direct, levels, states, d_query, d_direct, reading, bounds, owners,
    query_batch, query_step, query_channel, key_batch, key_step, key_channel,
    value_batch, value_step, value_channel, grad_batch, grad_step, grad_channel, T, N,
    DK: tl.constexpr, DV: tl.constexpr, C: tl.constexpr, LEVELS: tl.constexpr, BLOCK: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Gradients of query and direct, and the sums A, `reading` [B,N,C,8]. Tiles are [i, j]."""
    b, n = tl.program_id(0).to(tl.int64) // N, tl.program_id(0).to(tl.int64) % N
    first, valid = chunk(bounds, owners, n, C)
    if valid == 0:
        return
    i = tl.arange(0, C)
    steps, line = i < valid, b * T + first
    query += b * query_batch + first * query_step
    key += b * key_batch + first * key_step
    value += b * value_batch + first * value_step
    grad += b * grad_batch + first * grad_step
    d_query += line * DK
    levels += (b * N + n) * 2 * LEVELS * C
    states += (b * N + n) * DK * DV
    reading += (b * N + n) * C * 8
    scores = _product(
        query, query_step, query_channel, key, key_step, key_channel, steps, DK, C, BLOCK, ACC, OPERAND, VALUES
    )
    d_weights = _product(
        grad, grad_step, grad_channel, value, value_step, value_channel, steps, DV, C, BLOCK, ACC, OPERAND, VALUES
    )
    scores, d_weights = grouped(scores, C), grouped(d_weights, C)
    rows, columns = factors(levels, mark + line, source + line, direct + line, valid, C, LEVELS, True)
    sums, diagonal = level_sums(scores * d_weights * columns, C, LEVELS, True)
    tl.store(d_direct + line + i, diagonal, mask=steps)
    d_scores = reached(d_weights * (rows * columns), C, True).to(OPERAND)
    # dQ, and how much each step has read of the state that enters
    read_all = tl.load(mark + line + i, mask=steps, other=0.0) * prefix(levels, i, LEVELS, LEVELS, C)
    d_reading = tl.zeros([C], ACC)
    for d in range(0, DK, BLOCK):
        ik = d + tl.arange(0, BLOCK)
        read = tl.zeros([C, BLOCK], ACC)
        for e in range(0, DV, BLOCK):
            iv = e + tl.arange(0, BLOCK)
            grads = read_tile(grad, i, grad_step, iv, grad_channel, steps, iv < DV, OPERAND)
            state = read_tile(states, iv, 1, ik, DV, iv < DV, ik < DK, OPERAND)
            read = mm(grads, state, read, VALUES)
        queries = read_tile(query, i, query_step, ik, query_channel, steps, ik < DK, OPERAND)
        keys = read_tile(key, i, key_step, ik, key_channel, steps, ik < DK, OPERAND)
        d_reading += tl.sum(read * queries.to(ACC), 1)
        result = mm(d_scores, keys, read_all[:, None] * read, VALUES)
        places = d_query + i[:, None] * DK + ik[None, :]
        tl.store(places, result.to(d_query.dtype.element_ty), mask=steps[:, None] & (ik < DK)[None, :])
    store_sums(reading, sums, d_reading, C, LEVELS)


@triton.jit(do_not_specialize=["T", "N"])
def gradients_write(
    query, key, value, grad, source, mark, direct, levels, states, d_states,
    d_key, d_value, writing, d_total, bounds, owners,
    query_batch, query_step, query_channel, key_batch, key_step, key_channel,
    value_batch, value_step, value_channel, grad_batch, grad_step, grad_channel, T, N,
    DK: tl.constexpr, DV: tl.constexpr, C: tl.constexpr, LEVELS: tl.constexpr, BLOCK: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Gradients of key, value and the product over the chunk, and the sums B, `writing`. Tiles are [j, i]."""
    b, n = tl.program_id(0).to(tl.int64) // N, tl.program_id(0).to(tl.int64) % N
    first, valid = chunk(bounds, owners, n, C)
    if valid == 0:
        return
    j = tl.arange(0, C)
    steps, line = j < valid, b * T + first
    query += b * query_batch + first * query_step
    key += b * key_batch + first * key_step
    value += b * value_batch + first * value_step
    grad += b * grad_batch + first * grad_step
    d_key += line * DK
    d_value += line * DV
    levels += (b * N + n) * 2 * LEVELS * C
    states += (b * N + n) * DK * DV
    d_states += (b * N + n) * DK * DV
    writing += (b * N + n) * C * 8
    scores = _product(
        key, key_step, key_channel, query, query_step, query_channel, steps, DK, C, BLOCK, ACC, OPERAND, VALUES
    )
    d_weights = _product(
        value, value_step, value_channel, grad, grad_step, grad_channel, steps, DV, C, BLOCK, ACC, OPERAND, VALUES
    )
    scores, d_weights = grouped(scores, C), grouped(d_weights, C)
    rows, columns = factors(levels, source + line, mark + line, direct + line, valid, C, LEVELS, False)
    sums, _ = level_sums(scores * d_weights * columns, C, LEVELS, False)
    weights = reached(scores * (rows * columns), C, False).to(OPERAND)
    write_all = tl.load(source + line + j, mask=steps, other=0.0) * suffix(levels, j, LEVELS, LEVELS, C)
    for e in range(0, DV, BLOCK):
        iv = e + tl.arange(0, BLOCK)
        grads = read_tile(grad, j, grad_step, iv, grad_channel, steps, iv < DV, OPERAND)
        result, written = mm(weights, grads, tl.zeros([C, BLOCK], ACC), VALUES), tl.zeros([C, BLOCK], ACC)
        for d in range(0, DK, BLOCK):
            ik = d + tl.arange(0, BLOCK)
            keys = read_tile(key, j, key_step, ik, key_channel, steps, ik < DK, OPERAND)
            d_state = read_tile(d_states, ik, DV, iv, 1, ik < DK, iv < DV, OPERAND)
            written = mm(keys, d_state, written, VALUES)
        result += write_all[:, None] * written
        places = d_value + j[:, None] * DV + iv[None, :]
        tl.store(places, result.to(d_value.dtype.element_ty), mask=steps[:, None] & (iv < DV)[None, :])
    d_scores = reached(d_weights * (rows * columns), C, False).to(OPERAND)
    # dK, and how much of the state that leaves each step has written
    d_writing, product = tl.zeros([C], ACC), tl.zeros([BLOCK], ACC)
    for d in range(0, DK, BLOCK):
        ik = d + tl.arange(0, BLOCK)
        queries = read_tile(query, j, query_step, ik, query_channel, steps, ik < DK, OPERAND)
        result, written = mm(d_scores, queries, tl.zeros([C, BLOCK], ACC), VALUES), tl.zeros([C, BLOCK], ACC)
        for e in range(0, DV, BLOCK):
            iv = e + tl.arange(0, BLOCK)
            d_state = read_tile(d_states, iv, 1, ik, DV, iv < DV, ik < DK, OPERAND)
            state = read_tile(states, iv, 1, ik, DV, iv < DV, ik < DK, OPERAND)
            product += tl.sum(state.to(ACC) * d_state.to(ACC), 0)
            values = read_tile(value, j, value_step, iv, value_channel, steps, iv < DV, OPERAND)
            written = mm(values, d_state, written, VALUES)
        keys = read_tile(key, j, key_step, ik, key_channel, steps, ik < DK, OPERAND)
        d_writing += tl.sum(written * keys.to(ACC), 1)
        result += write_all[:, None] * written
        places = d_key + j[:, None] * DK + ik[None, :]
        tl.store(places, result.to(d_key.dtype.element_ty), mask=steps[:, None] & (ik < DK)[None, :])
    store_sums(writing, sums, d_writing, C, LEVELS)
    tl.store(d_total + b * N + n, tl.sum(product, 0))
