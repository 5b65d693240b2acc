"""States between chunks: one program walks a packed sequence with one tile of the state, forwards or backwards.

With the chunk's suffix f, prefix p and total t (see `decay.py`), source s and mark m:

    C_{n+1}  = t C_n  + (s f K)ᵀ V          the states that enter the chunks, and the last one
    dC_{n-1} = t dC_n + (m p Q)ᵀ dH         the gradients of those that leave them, and of the initial one
"""

import triton
import triton.language as tl

from plstm_torch.ops._plstm_1d.triton.places import sequence
from plstm_torch.ops._triton.decay import prefix, suffix, total
from plstm_torch.ops._triton.dots import mm_wide, read_tile


@triton.jit
def _tile(pk, pv, DK, DV, BLOCK: tl.constexpr):
    """Channels of key and value, places in a state, and which of them exist, of one tile of a state."""
    ik, iv = pk * BLOCK + tl.arange(0, BLOCK), pv * BLOCK + tl.arange(0, BLOCK)
    return ik, iv, ik[:, None] * DV + iv[None, :], (ik < DK)[:, None] & (iv < DV)[None, :]


@triton.jit(do_not_specialize=["T", "N", "S", "key_batch", "value_batch"])
def states_forward(
    key, value, source, transition, initial, entering, last, bounds,
    key_batch, key_step, key_channel, value_batch, value_step, value_channel, T, N, S, DK, DV,
    C: tl.constexpr, BLOCK: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, EXACT: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Stores the state that enters every chunk, [B,N,DK,DV], and the last of every sequence, [B,S,DK,DV]."""
    b, s = tl.program_id(0).to(tl.int64) // S, tl.program_id(0).to(tl.int64) % S
    ik, iv, tile, inside = _tile(tl.program_id(1), tl.program_id(2), DK, DV, BLOCK)
    i = tl.arange(0, C)
    begin, end, slot = sequence(bounds, s, C)
    state = tl.load(initial + (b * S + s) * DK * DV + tile, mask=inside, other=0.0).to(ACC)
    for n in range(0, tl.cdiv(end - begin, C)):
        first = begin + n * C
        valid = tl.minimum(end - first, C)
        line, steps = b * T + first, i < valid
        tl.store(entering + (b * N + slot + n) * DK * DV + tile, state, mask=inside)
        # C <- t C + (s f K)ᵀ V
        after = suffix(transition + line, valid, C)
        written = after * tl.load(source + line + i, mask=steps, other=0.0)
        keys = read_tile(key + b * key_batch + first * key_step, ik, key_channel, i, key_step, ik < DK, steps, ACC)
        values = read_tile(
            value + b * value_batch + first * value_step, i, value_step, iv, value_channel, steps, iv < DV, OPERAND
        )
        passed = total(transition + line, after, C) * state
        state = mm_wide(keys * written[None, :], values, passed, OPERAND, EXACT, SPLIT)
    tl.store(last + (b * S + s) * DK * DV + tile, state, mask=inside)


@triton.jit(do_not_specialize=["T", "N", "S", "query_batch", "grad_batch"])
def states_backward(
    query, grad, transition, mark, d_last, d_leaving, d_initial, bounds,
    query_batch, query_step, query_channel, grad_batch, grad_step, grad_channel, T, N, S, DK, DV,
    C: tl.constexpr, BLOCK: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, EXACT: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Stores the gradient of the state that leaves every chunk, [B,N,DK,DV], and of the initial ones, [B,S,DK,DV]."""
    b, s = tl.program_id(0).to(tl.int64) // S, tl.program_id(0).to(tl.int64) % S
    ik, iv, tile, inside = _tile(tl.program_id(1), tl.program_id(2), DK, DV, BLOCK)
    i = tl.arange(0, C)
    begin, end, slot = sequence(bounds, s, C)
    d_state = tl.load(d_last + (b * S + s) * DK * DV + tile, mask=inside, other=0.0).to(ACC)
    count = tl.cdiv(end - begin, C)
    for step in range(0, count):
        n = count - 1 - step
        first = begin + n * C
        valid = tl.minimum(end - first, C)
        line, steps = b * T + first, i < valid
        tl.store(d_leaving + (b * N + slot + n) * DK * DV + tile, d_state, mask=inside)
        # dC <- t dC + (m p Q)ᵀ dH
        read = prefix(transition + line, valid, C) * tl.load(mark + line + i, mask=steps, other=0.0)
        queries = read_tile(
            query + b * query_batch + first * query_step, ik, query_channel, i, query_step, ik < DK, steps, ACC
        )
        grads = read_tile(
            grad + b * grad_batch + first * grad_step, i, grad_step, iv, grad_channel, steps, iv < DV, OPERAND
        )
        passed = total(transition + line, suffix(transition + line, valid, C), C) * d_state
        d_state = mm_wide(queries * read[None, :], grads, passed, OPERAND, EXACT, SPLIT)
    tl.store(d_initial + (b * S + s) * DK * DV + tile, d_state, mask=inside)
