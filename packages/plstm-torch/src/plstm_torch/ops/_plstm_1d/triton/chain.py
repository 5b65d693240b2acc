"""States between chunks with state-tracking matrices: a program walks a packed sequence with a piece of all JT states.

With the chunk's total T and what it writes W, or what reads of it give back, R:

    C_{n+1}  = T_n C_n  + W_n           the states that enter the chunks, and the last ones
    dC_{n-1} = T_nᵀ dC_n + R_n          the gradients of those that leave them, and of the initial ones

Entries of a state meet only their like among the JT, so places are a flat line of P = DV * DK. The walk covers the
chunks in slots [low, low + N) of a segment; what crosses its borders is handed on through `carried` and `passed`, which
hold one state for each row of the batch.
"""

import triton
import triton.language as tl

from plstm_torch.ops._plstm_1d.triton.places import sequence


@triton.jit
def _walk(bounds, S, N, low, C: tl.constexpr):
    """Row of the batch, sequence, its first slot, the one behind its last, and whether any lies in the segment."""
    b, s = tl.program_id(0).to(tl.int64) // S, tl.program_id(0).to(tl.int64) % S
    begin, end, slot = sequence(bounds, s, C)
    behind = slot + tl.cdiv(end - begin, C)
    # the slot of an empty sequence holds no chunk, but the segment with it hands its state on
    return b, s, slot, behind, (slot < low + N) & ((slot >= low) | (behind > low))


@triton.jit
def _states(P, JT: tl.constexpr, JTP: tl.constexpr, BLOCK: tl.constexpr):
    """Places of a block of all JT states, and which of them exist."""
    a, p = tl.arange(0, JTP), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    return a, a[:, None] * P + p[None, :], (a < JT)[:, None] & (p < P)[None, :]


@triton.jit(do_not_specialize=["S", "N", "low", "carried_batch", "passed_batch"])
def chain_forward(
    total, written, initial, carried, entering, last, passed, bounds, carried_batch, passed_batch, S, N, low, P,
    C: tl.constexpr, JT: tl.constexpr, JTP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Stores the states that enter the chunks, [B*N,JT,P], and the last ones of sequences that end here, [B,S,JT,P]."""
    b, s, slot, behind, here = _walk(bounds, S, N, low, C)
    if not here:
        return
    first, stop = tl.maximum(slot, low), tl.minimum(behind, low + N)
    a, places, inside = _states(P, JT, JTP, BLOCK)
    square = (a < JT)[:, None] & (a < JT)[None, :]
    own = (b * S + s) * JT * P
    if slot >= low:
        state = tl.load(initial + own + places, mask=inside, other=0.0)
    else:
        state = tl.load(carried + b * carried_batch + places, mask=inside, other=0.0)
    for n in range(first, stop):
        at = b * N + n - low
        tl.store(entering + at * JT * P + places, state, mask=inside)
        move = tl.load(total + at * JT * JT + a[:, None] * JT + a[None, :], mask=square, other=0.0)
        state = tl.load(written + at * JT * P + places, mask=inside, other=0.0) + tl.sum(
            move[:, :, None] * state[None, :, :], 1
        )
    if behind <= low + N:
        tl.store(last + own + places, state, mask=inside)
    else:
        tl.store(passed + b * passed_batch + places, state, mask=inside)


@triton.jit(do_not_specialize=["S", "N", "low", "carried_batch", "passed_batch"])
def chain_backward(
    total, read, d_last, carried, d_leaving, d_initial, passed, bounds, carried_batch, passed_batch, S, N, low, P,
    C: tl.constexpr, JT: tl.constexpr, JTP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Stores the gradients of the states that leave the chunks, and of the initial ones where sequences begin here."""
    b, s, slot, behind, here = _walk(bounds, S, N, low, C)
    if not here:
        return
    first, stop = tl.maximum(slot, low), tl.minimum(behind, low + N)
    a, places, inside = _states(P, JT, JTP, BLOCK)
    square = (a < JT)[:, None] & (a < JT)[None, :]
    own = (b * S + s) * JT * P
    if behind <= low + N:
        d_state = tl.load(d_last + own + places, mask=inside, other=0.0)
    else:
        d_state = tl.load(carried + b * carried_batch + places, mask=inside, other=0.0)
    for step in range(first, stop):
        n = first + stop - 1 - step
        at = b * N + n - low
        tl.store(d_leaving + at * JT * P + places, d_state, mask=inside)
        move = tl.load(total + at * JT * JT + a[:, None] * JT + a[None, :], mask=square, other=0.0)
        d_state = tl.load(read + at * JT * P + places, mask=inside, other=0.0) + tl.sum(
            move[:, :, None] * d_state[:, None, :], 0
        )
    if slot >= low:
        tl.store(d_initial + own + places, d_state, mask=inside)
    else:
        tl.store(passed + b * passed_batch + places, d_state, mask=inside)
