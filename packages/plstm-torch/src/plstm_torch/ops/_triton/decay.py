"""Decay along a line of C = 2^LEVELS steps: products of neighbouring transitions, no division and no logarithm.

R[i, j] is the product of the transitions between step j and a later step i. If l is the highest bit in which i and j
differ, j lies in the left and i in the right one of two neighbouring blocks of 2^l steps, so that

    R[i, j] = P_l[i] S_l[j]

with P_l[i] the product from the start of the block of i to the step before i, S_l[j] the product from the step after j
to the end of the block of j. `levels` holds P_1 ... P_LEVELS and S_1 ... S_LEVELS, [2 LEVELS, C]; P_0 = S_0 = 1. The
last of each are prefix and suffix of the whole line. A tile of R thus takes no scan, which would pass through many
threads, but one product and some selections a number. No number of another step or line gets in.
"""

import triton
import triton.language as tl


@triton.jit
def neighbour(transition, valid, SHIFT: tl.constexpr, C: tl.constexpr):
    """[C]: the transition SHIFT steps further, one outside of the line."""
    k = tl.arange(0, C) + SHIFT
    return tl.load(transition + k, mask=(k >= 0) & (k < valid), other=1.0)


@triton.jit
def prefix_of_blocks(transition, valid, WIDTH: tl.constexpr, C: tl.constexpr):
    """[C]: product of the transitions from the start of each step's block of WIDTH steps to the step before it."""
    before = tl.where(tl.arange(0, C) % WIDTH > 0, neighbour(transition, valid, -1, C), 1.0)
    return tl.reshape(tl.cumprod(tl.reshape(before, [C // WIDTH, WIDTH]), 1), [C])


@triton.jit
def suffix_of_blocks(transition, valid, WIDTH: tl.constexpr, C: tl.constexpr):
    """[C]: product of the transitions from the step after each one to the end of its block of WIDTH steps."""
    after = tl.where((tl.arange(0, C) + 1) % WIDTH > 0, neighbour(transition, valid, 1, C), 1.0)
    return tl.reshape(tl.cumprod(tl.reshape(after, [C // WIDTH, WIDTH]), 1, reverse=True), [C])


@triton.jit
def prefix(levels, steps, LEVEL: tl.constexpr, LEVELS: tl.constexpr, C: tl.constexpr):
    """P_LEVEL at some steps, from `levels`."""
    if LEVEL == 0:
        return tl.full(steps.shape, 1.0, levels.dtype.element_ty)
    return tl.load(levels + (LEVEL - 1) * C + steps)


@triton.jit
def suffix(levels, steps, LEVEL: tl.constexpr, LEVELS: tl.constexpr, C: tl.constexpr):
    """S_LEVEL at some steps, from `levels`."""
    if LEVEL == 0:
        return tl.full(steps.shape, 1.0, levels.dtype.element_ty)
    return tl.load(levels + (LEVELS + LEVEL - 1) * C + steps)


@triton.jit
def of_level(i, j, LEVEL: tl.constexpr):
    """Where step i is later than j and LEVEL the highest bit in which they differ; a compiler knows half of it."""
    return ((i >> LEVEL) == (j >> LEVEL) + 1) & ((i >> LEVEL) % 2 == 1) & ((j >> LEVEL) % 2 == 0)
