"""Decay along a line of steps: products of neighbouring transitions, by scans; nothing is divided, no logarithm taken.

The masked-out transitions are one before the scan multiplies them, and what a scan gives outside its triangle is
dropped by selection, so that no number of another step or line gets in. A line is shifted by loading it at an offset.
"""

import triton
import triton.language as tl


@triton.jit
def neighbour(transition, valid, SHIFT: tl.constexpr, C: tl.constexpr):
    """[C]: the transition SHIFT steps further, one outside of the line."""
    k = tl.arange(0, C) + SHIFT
    return tl.load(transition + k, mask=(k >= 0) & (k < valid), other=1.0)


@triton.jit
def decay(transition, valid, C: tl.constexpr):
    """R[i, j] = product of T_k over j < k < i, zero unless i > j: a scan of products along i."""
    i, j = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    before = neighbour(transition, valid, -1, C)
    steps = tl.where(i - 1 > j, before[:, None], 1.0)
    return tl.where(i > j, tl.cumprod(steps, 0), 0.0)


@triton.jit
def decay_transposed(transition, valid, C: tl.constexpr):
    """R as [j, i], by a scan of its own: nothing is transposed."""
    j, i = tl.arange(0, C)[:, None], tl.arange(0, C)[None, :]
    before = neighbour(transition, valid, -1, C)
    steps = tl.where(i - 1 > j, before[None, :], 1.0)
    return tl.where(i > j, tl.cumprod(steps, 1), 0.0)


@triton.jit
def prefix(transition, valid, C: tl.constexpr):
    """[C]: product of the transitions before each step."""
    return tl.cumprod(neighbour(transition, valid, -1, C), 0)


@triton.jit
def suffix(transition, valid, C: tl.constexpr):
    """[C]: product of the transitions after each step."""
    return tl.cumprod(neighbour(transition, valid, 1, C), 0, reverse=True)


@triton.jit
def total(transition, after, C: tl.constexpr):
    """The product over the whole line of at least one step, from its `suffix`."""
    return tl.load(transition) * tl.sum(tl.where(tl.arange(0, C) == 0, after, 0.0), 0)
