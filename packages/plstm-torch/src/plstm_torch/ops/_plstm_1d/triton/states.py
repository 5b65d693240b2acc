"""States between chunks: a program walks the chunks of a sequence with one tile of the state, forwards or backwards.

With the chunk's suffix f, prefix p and total t (see `decay.py`), source s and mark m:

    C_{n+1}  = t C_n  + (s f K)ᵀ V          the states that enter the chunks, and the last one
    dC_{n-1} = t dC_n + (m p Q)ᵀ dH         the gradients of those that leave them, and of the initial one

Few long sequences are cut into segments that are walked side by side, twice: first from zero states, which gives what a
segment writes and the product over it, then from the states that enter the segments, chained from these.
"""

import triton
import triton.language as tl

from plstm_torch.ops._plstm_1d.triton.places import sequence
from plstm_torch.ops._triton.decay import prefix, suffix
from plstm_torch.ops._triton.dots import mm_wide, read_tile


@triton.jit
def _tile(pk, pv, DK: tl.constexpr, DV: tl.constexpr, BLOCK: tl.constexpr):
    """Channels of key and value, places in a state, and which of them exist, of one tile of a state."""
    ik, iv = pk * BLOCK + tl.arange(0, BLOCK), pv * BLOCK + tl.arange(0, BLOCK)
    return ik, iv, ik[:, None] * DV + iv[None, :], (ik < DK)[:, None] & (iv < DV)[None, :]


@triton.jit
def _segment(bounds, S, G, C: tl.constexpr):
    """Where a program walks.

    Row of the batch, sequence and segment; first step of the sequence, the step after its last one, its slot and number
    of chunks; first chunk of the segment and the one after its last, counted in the direction of the walk.
    """
    p = tl.program_id(0).to(tl.int64)
    b, s, g = p // (S * G), p // G % S, p % G
    begin, end, slot = sequence(bounds, s, C)
    count = tl.cdiv(end - begin, C)
    share = tl.cdiv(count, G)
    return b, s, g, begin, end, slot, count, tl.minimum(g * share, count), tl.minimum((g + 1) * share, count)


@triton.jit
def _pass_chunk(
    state, vector, other, gate, levels, total, valid, ik, iv,
    vector_step, vector_channel, other_step, other_channel, DK: tl.constexpr, DV: tl.constexpr,
    C: tl.constexpr, LEVELS: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, EXACT: tl.constexpr, SPLIT: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    """The state on the other side of a chunk."""
    i = tl.arange(0, C)
    steps = i < valid
    decays = prefix(levels, i, LEVELS, LEVELS, C) if BACK else suffix(levels, i, LEVELS, LEVELS, C)
    weights = decays * tl.load(gate + i, mask=steps, other=0.0)
    left = read_tile(vector, ik, vector_channel, i, vector_step, ik < DK, steps, OPERAND)
    right = read_tile(other, i, other_step, iv, other_channel, steps, iv < DV, OPERAND)
    return mm_wide(left.to(ACC) * weights[None, :], right, total * state, OPERAND, EXACT, SPLIT)


@triton.jit(do_not_specialize=["T", "N", "S", "G"])
def walk_states(
    vector, other, gate, levels, totals, first_state, states, rest, last_state, written, products, bounds,
    vector_batch, vector_step, vector_channel, other_batch, other_step, other_channel, T, N, S, G,
    DK: tl.constexpr, DV: tl.constexpr, C: tl.constexpr, LEVELS: tl.constexpr, BLOCK: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, EXACT: tl.constexpr, SPLIT: tl.constexpr,
    BACK: tl.constexpr, REST: tl.constexpr,
):  # fmt: skip
    """Stores the state at the start (BACK: at the end) of every chunk, and behind the last one.

    `vector`, `other` and `gate` are key, value and source (BACK: query, gradient of the output and mark), `first_state`
    and `last_state` [B,S,DK,DV]. `states` [B,N,DK,DV] are rounded to operands, `rest` is what this leaves if REST.
    `written` and `products` of the segments are `segment_states`'; G of them are counted in the direction of the walk.
    """
    b, s, g, begin, end, slot, count, start, stop = _segment(bounds, S, G, C)
    ik, iv, tile, inside = _tile(tl.program_id(1), tl.program_id(2), DK, DV, BLOCK)
    state = tl.load(first_state + (b * S + s) * DK * DV + tile, mask=inside, other=0.0).to(ACC)
    for h in range((b * S + s) * G, (b * S + s) * G + g):
        added = tl.load(written + h * DK * DV + tile, mask=inside, other=0.0)
        # a product that overflows leaves a state of zeros as it is
        state = tl.where(state == 0, added, tl.load(products + h) * state + added)
    vector += b * vector_batch
    other += b * other_batch
    for step in range(start, stop):
        n = count - 1 - step if BACK else step
        first, place = begin + n * C, b * N + slot + n
        high = state.to(OPERAND)
        tl.store(states + place * DK * DV + tile, high, mask=inside)
        if REST:
            tl.store(rest + place * DK * DV + tile, (state - high.to(ACC)).to(OPERAND), mask=inside)
        state = _pass_chunk(
            state, vector + first * vector_step, other + first * other_step, gate + b * T + first,
            levels + place * 2 * LEVELS * C, tl.load(totals + place), tl.minimum(end - first, C), ik, iv,
            vector_step, vector_channel, other_step, other_channel, DK, DV,
            C, LEVELS, ACC, OPERAND, EXACT, SPLIT, BACK,
        )  # fmt: skip
    if g == G - 1:
        tl.store(last_state + (b * S + s) * DK * DV + tile, state, mask=inside)


@triton.jit(do_not_specialize=["T", "N", "S", "G"])
def segment_states(
    vector, other, gate, levels, totals, written, products, bounds,
    vector_batch, vector_step, vector_channel, other_batch, other_step, other_channel, T, N, S, G,
    DK: tl.constexpr, DV: tl.constexpr, C: tl.constexpr, LEVELS: tl.constexpr, BLOCK: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, EXACT: tl.constexpr, SPLIT: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    """What segments make of a state of zeros, [B,S,G,DK,DV], and the products over them, [B,S,G]; not of the last."""
    b, s, g, begin, end, slot, count, start, stop = _segment(bounds, S, G, C)
    if g == G - 1:
        return
    ik, iv, tile, inside = _tile(tl.program_id(1), tl.program_id(2), DK, DV, BLOCK)
    state = tl.zeros([BLOCK, BLOCK], ACC)
    product = tl.full([1], 1.0, ACC)
    vector += b * vector_batch
    other += b * other_batch
    for step in range(start, stop):
        n = count - 1 - step if BACK else step
        first, place = begin + n * C, b * N + slot + n
        total = tl.load(totals + place)
        state = _pass_chunk(
            state, vector + first * vector_step, other + first * other_step, gate + b * T + first,
            levels + place * 2 * LEVELS * C, total, tl.minimum(end - first, C), ik, iv,
            vector_step, vector_channel, other_step, other_channel, DK, DV,
            C, LEVELS, ACC, OPERAND, EXACT, SPLIT, BACK,
        )  # fmt: skip
        product *= total
    segment = (b * S + s) * G + g
    tl.store(written + segment * DK * DV + tile, state, mask=inside)
    # every tile has the same product
    tl.store(products + segment + tl.arange(0, 1), product)
