"""Gradients inside the chunks, by two kernels: what steps read, and what they write.

With scores S = Q Kᵀ, dP = dH Vᵀ, Y = S ⊙ dP, p, f, t prefix, suffix and total of the chunk, C the state that enters it
and dC the gradient of the one that leaves:

    dQ = (dP ⊙ G) K + m p ⊙ (dH Cᵀ)        read_i = Q_i · (dH Cᵀ)_i        dm_i = sum_j Y R s_j + p_i read_i
    dK = (dP ⊙ G)ᵀ Q + s f ⊙ (V dCᵀ)       write_j = K_j · (V dCᵀ)_j       ds_j = sum_i m_i R Y + f_j write_j
    dV = (S ⊙ G)ᵀ dH + s f ⊙ (K dC)        dD = diag Y
    dT_k = sum_j R[k, j] (Rᵀ dR)[k, j] + p_k sum_i R[i, k] m_i read_i        where dR = m_i s_j Y,
         + f_k sum_j R[k, j] s_j write_j + p_k f_k <C, dC>               the second line by `write`

The second kernel adds its part of dT to what the first has stored. It forms every tile as [j, i] by products of its
own: no accumulator is transposed.
"""

import triton
import triton.language as tl

from plstm_torch.ops._plstm_1d.triton.places import chunk
from plstm_torch.ops._triton.decay import decay, decay_transposed, prefix, suffix
from plstm_torch.ops._triton.dots import mm, read_tile


@triton.jit
def _product(
    left, left_step, left_channel, right, right_step, right_channel, steps, D,
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


@triton.jit(do_not_specialize=["T", "N", "query_batch", "key_batch", "value_batch", "grad_batch"])
def gradients_read(
    query, key, value, grad, source, transition, mark, direct, entering,
    d_query, d_transition, d_mark, d_direct, bounds, owners,
    query_batch, query_step, query_channel, key_batch, key_step, key_channel,
    value_batch, value_step, value_channel, grad_batch, grad_step, grad_channel, T, N, DK, DV,
    C: tl.constexpr, BLOCK: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Gradients of query, mark and direct, and the first line of that of the transition. Tiles are [i, j]."""
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
    entering += (b * N + n) * DK * DV
    scores = _product(
        query, query_step, query_channel, key, key_step, key_channel, steps, DK, C, BLOCK, ACC, OPERAND, VALUES
    )
    d_weights = _product(
        grad, grad_step, grad_channel, value, value_step, value_channel, steps, DV, C, BLOCK, ACC, OPERAND, VALUES
    )
    m = tl.load(mark + line + i, mask=steps, other=0.0)
    s = tl.load(source + line + i, mask=steps, other=0.0)
    own = tl.load(direct + line + i, mask=steps, other=0.0)
    below, diagonal = i[:, None] > i[None, :], i[:, None] == i[None, :]
    between = decay(transition + line, valid, C)
    d_gating = scores * d_weights
    tl.store(d_direct + line + i, tl.sum(tl.where(diagonal, d_gating, 0.0), 1), mask=steps)
    gating = tl.where(diagonal, own[:, None], m[:, None] * between * s[None, :])
    d_scores = tl.where(below | diagonal, d_weights * gating, 0.0).to(OPERAND)
    # the part of dm and dT from inside of the chunk
    d_gating = tl.where(below, d_gating * s[None, :], 0.0)
    dm = tl.sum(d_gating * between, 1)
    columns = decay_transposed(transition + line, valid, C)
    dt = tl.sum(mm(columns, d_gating * m[:, None], tl.zeros([C, C], ACC), EXACT) * between, 1)
    # dQ, and how much each step has read of the state that enters
    before = prefix(transition + line, valid, C)
    d_reading = tl.zeros([C], ACC)
    for d in range(0, DK, BLOCK):
        ik = d + tl.arange(0, BLOCK)
        read = tl.zeros([C, BLOCK], ACC)
        for e in range(0, DV, BLOCK):
            iv = e + tl.arange(0, BLOCK)
            grads = read_tile(grad, i, grad_step, iv, grad_channel, steps, iv < DV, OPERAND)
            state = read_tile(entering, iv, 1, ik, DV, iv < DV, ik < DK, OPERAND)
            read = mm(grads, state, read, VALUES)
        queries = read_tile(query, i, query_step, ik, query_channel, steps, ik < DK, OPERAND)
        keys = read_tile(key, i, key_step, ik, key_channel, steps, ik < DK, OPERAND)
        d_reading += tl.sum(read * queries.to(ACC), 1)
        result = mm(d_scores, keys, (m * before)[:, None] * read, VALUES)
        places = d_query + i[:, None] * DK + ik[None, :]
        tl.store(places, result.to(d_query.dtype.element_ty), mask=steps[:, None] & (ik < DK)[None, :])
    dt += before * tl.sum(between * (d_reading * m)[:, None], 0)
    tl.store(d_mark + line + i, dm + d_reading * before, mask=steps)
    tl.store(d_transition + line + i, dt, mask=steps)


@triton.jit(do_not_specialize=["T", "N", "query_batch", "key_batch", "value_batch", "grad_batch"])
def gradients_write(
    query, key, value, grad, source, transition, mark, direct, entering, d_leaving,
    d_key, d_value, d_source, d_transition, bounds, owners,
    query_batch, query_step, query_channel, key_batch, key_step, key_channel,
    value_batch, value_step, value_channel, grad_batch, grad_step, grad_channel, T, N, DK, DV,
    C: tl.constexpr, BLOCK: tl.constexpr, ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Gradients of key, value and source, and the second line of that of the transition. Tiles are [j, i]."""
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
    entering += (b * N + n) * DK * DV
    d_leaving += (b * N + n) * DK * DV
    scores = _product(
        key, key_step, key_channel, query, query_step, query_channel, steps, DK, C, BLOCK, ACC, OPERAND, VALUES
    )
    d_weights = _product(
        value, value_step, value_channel, grad, grad_step, grad_channel, steps, DV, C, BLOCK, ACC, OPERAND, VALUES
    )
    m = tl.load(mark + line + j, mask=steps, other=0.0)
    s = tl.load(source + line + j, mask=steps, other=0.0)
    own = tl.load(direct + line + j, mask=steps, other=0.0)
    above, diagonal = j[:, None] < j[None, :], j[:, None] == j[None, :]
    between = decay_transposed(transition + line, valid, C)
    gating = tl.where(diagonal, own[:, None], s[:, None] * between * m[None, :])
    ds = tl.sum(tl.where(above, scores * d_weights * between * m[None, :], 0.0), 1)
    weights = tl.where(above | diagonal, scores * gating, 0.0).to(OPERAND)
    d_scores = tl.where(above | diagonal, d_weights * gating, 0.0).to(OPERAND)
    # dK, and how much of the state that leaves each step has written
    after = suffix(transition + line, valid, C)
    d_writing, d_total = tl.zeros([C], ACC), tl.zeros([BLOCK], ACC)
    for d in range(0, DK, BLOCK):
        ik = d + tl.arange(0, BLOCK)
        written = tl.zeros([C, BLOCK], ACC)
        for e in range(0, DV, BLOCK):
            iv = e + tl.arange(0, BLOCK)
            d_state = read_tile(d_leaving, iv, 1, ik, DV, iv < DV, ik < DK, ACC)
            state = read_tile(entering, iv, 1, ik, DV, iv < DV, ik < DK, ACC)
            d_total += tl.sum(state * d_state, 0)
            values = read_tile(value, j, value_step, iv, value_channel, steps, iv < DV, OPERAND)
            written = mm(values, d_state.to(OPERAND), written, VALUES)
        queries = read_tile(query, j, query_step, ik, query_channel, steps, ik < DK, OPERAND)
        keys = read_tile(key, j, key_step, ik, key_channel, steps, ik < DK, OPERAND)
        d_writing += tl.sum(written * keys.to(ACC), 1)
        result = mm(d_scores, queries, (s * after)[:, None] * written, VALUES)
        places = d_key + j[:, None] * DK + ik[None, :]
        tl.store(places, result.to(d_key.dtype.element_ty), mask=steps[:, None] & (ik < DK)[None, :])
    for e in range(0, DV, BLOCK):
        iv = e + tl.arange(0, BLOCK)
        written = tl.zeros([C, BLOCK], ACC)
        for d in range(0, DK, BLOCK):
            ik = d + tl.arange(0, BLOCK)
            keys = read_tile(key, j, key_step, ik, key_channel, steps, ik < DK, OPERAND)
            d_state = read_tile(d_leaving, ik, DV, iv, 1, ik < DK, iv < DV, OPERAND)
            written = mm(keys, d_state, written, VALUES)
        grads = read_tile(grad, j, grad_step, iv, grad_channel, steps, iv < DV, OPERAND)
        result = mm(weights, grads, (s * after)[:, None] * written, VALUES)
        places = d_value + j[:, None] * DV + iv[None, :]
        tl.store(places, result.to(d_value.dtype.element_ty), mask=steps[:, None] & (iv < DV)[None, :])
    dt = tl.load(d_transition + line + j, mask=steps, other=0.0)
    before = prefix(transition + line, valid, C)
    dt += after * (tl.sum(between * (d_writing * s)[:, None], 0) + before * tl.sum(d_total, 0))
    tl.store(d_source + line + j, ds + d_writing * after, mask=steps)
    tl.store(d_transition + line + j, dt, mask=steps)
