"""Products of transitions within blocks of a chunk, from which all decays follow (`decay.py`), and their gradients.

The gradients go back from blocks to their halves. With L and R the products over two neighbouring blocks of 2^l steps,

    P_{l+1} = P_l on the left, L P_l on the right        S_{l+1} = R S_l on the left, S_l on the right

so that dL = R d(L R) + sum over the right of dP_{l+1} P_l, dR = L d(L R) + sum over the left of dS_{l+1} S_l. Blocks of
one step are the transitions. Reading gives dP_l = m A_l and dm = sum_l P_l A_l, writing dS_l = s B_l and
ds = sum_l S_l B_l, with the sums A_l and B_l of `gradients.py`.
"""

import triton
import triton.language as tl

from plstm_torch.ops._plstm_1d.triton.places import chunk
from plstm_torch.ops._triton.decay import prefix, prefix_of_blocks, suffix, suffix_of_blocks


@triton.jit(do_not_specialize=["T", "N"])
def write_levels(
    transition, levels, totals, bounds, owners, T, N, C: tl.constexpr, LEVELS: tl.constexpr,
):  # fmt: skip
    """The levels of every chunk, [B,N,2 LEVELS,C], and the product over it, [B,N]."""
    b, n = tl.program_id(0).to(tl.int64) // N, tl.program_id(0).to(tl.int64) % N
    first, valid = chunk(bounds, owners, n, C)
    if valid == 0:
        return
    transition += b * T + first
    levels += (b * N + n) * 2 * LEVELS * C
    k = tl.arange(0, C)
    for level in tl.static_range(1, LEVELS + 1):
        tl.store(levels + (level - 1) * C + k, prefix_of_blocks(transition, valid, 2**level, C))
        after = suffix_of_blocks(transition, valid, 2**level, C)
        tl.store(levels + (LEVELS + level - 1) * C + k, after)
        if level == LEVELS:
            tl.store(totals + b * N + n, tl.load(transition) * tl.sum(tl.where(k == 0, after, 0.0), 0))


@triton.jit
def _halves(levels, starts, LEVEL: tl.constexpr, LEVELS: tl.constexpr, C: tl.constexpr):
    """Products over the left and over the right block of 2^LEVEL steps, of pairs that start at these steps."""
    left = prefix(levels, starts + 2**LEVEL, LEVEL + 1, LEVELS, C)
    return left, suffix(levels, starts + 2**LEVEL - 1, LEVEL + 1, LEVELS, C)


@triton.jit(do_not_specialize=["T", "N"])
def gate_gradients(
    source, mark, levels, reading, writing, d_total, d_source, d_transition, d_mark, bounds, owners, T, N,
    C: tl.constexpr, LEVELS: tl.constexpr,
):  # fmt: skip
    """Gradients of source, transition and mark from the sums A and B, [B,N,C,8], and that of `totals`."""
    b, n = tl.program_id(0).to(tl.int64) // N, tl.program_id(0).to(tl.int64) % N
    first, valid = chunk(bounds, owners, n, C)
    if valid == 0:
        return
    k, line = tl.arange(0, C), b * T + first
    steps = k < valid
    levels += (b * N + n) * 2 * LEVELS * C
    reading += (b * N + n) * C * 8
    writing += (b * N + n) * C * 8
    m = tl.load(mark + line + k, mask=steps, other=0.0)
    s = tl.load(source + line + k, mask=steps, other=0.0)
    read = tl.load(reading + k * 8 + LEVELS, mask=steps, other=0.0)
    written = tl.load(writing + k * 8 + LEVELS, mask=steps, other=0.0)
    d_prefix, d_suffix = m * read, s * written
    dm, ds = read * prefix(levels, k, LEVELS, LEVELS, C), written * suffix(levels, k, LEVELS, LEVELS, C)
    d_blocks = tl.load(d_total + b * N + n + tl.arange(0, 1))
    for level in tl.static_range(LEVELS - 1, -1, -1):
        before, after = prefix(levels, k, level, LEVELS, C), suffix(levels, k, level, LEVELS, C)
        right = (k >> level) % 2 == 1
        given = tl.where(steps, tl.where(right, d_prefix * before, d_suffix * after), 0.0)
        given = tl.sum(tl.reshape(given, [C >> level, 1 << level]), 1)
        to_right, to_left = tl.split(tl.reshape(given, [C >> (level + 1), 2]))
        starts = tl.arange(0, C >> (level + 1)) << (level + 1)
        of_left, of_right = _halves(levels, starts, level, LEVELS, C)
        d_blocks = tl.join(d_blocks * of_right + to_left, d_blocks * of_left + to_right)
        d_blocks = tl.reshape(d_blocks, [C >> level])
        of_left, of_right = _halves(levels, (k >> (level + 1)) << (level + 1), level, LEVELS, C)
        read = tl.load(reading + k * 8 + level, mask=steps, other=0.0)
        written = tl.load(writing + k * 8 + level, mask=steps, other=0.0)
        dm += read * before
        ds += written * after
        d_prefix = tl.where(right, d_prefix * of_left, d_prefix) + m * read
        d_suffix = tl.where(right, d_suffix, d_suffix * of_right) + s * written
    tl.store(d_mark + line + k, dm, mask=steps)
    tl.store(d_source + line + k, ds, mask=steps)
    tl.store(d_transition + line + k, d_blocks, mask=steps)
