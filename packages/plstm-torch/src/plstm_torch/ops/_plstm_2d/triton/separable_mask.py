"""A tile of D-mode's mask as a product of tiles of its two tables (`separable_lines.py`).

A tile has YB rows y' of targets and UB columns u' of sources. In each pair of them every orientation has rank one, and
paths that stay in the column x = u are one more, so the tile is a product over slots k = (y', u', way):

    G[(y, x), (u, v)] = sum over k of L[(y, x), k] R[k, (u, v)]
    L = [y = y'] A[y, x, u'], or [y = y'] [x = u'] where the way is that of E        R = [u = u'] B[y', u, v], or E

Places of the operands are broadcast, so either may be formed as it is or transposed. What the brackets leave out is
not loaded. Slots of a pair are filled up to a power of two.
"""

import triton
import triton.language as tl


@triton.jit
def slots_of(y0, u0, WAYS: tl.constexpr, PAIRS: tl.constexpr, UB: tl.constexpr):
    """Row, column and way of each slot; there are at least as many as a product needs."""
    SLOTS: tl.constexpr = 2 * WAYS
    K: tl.constexpr = PAIRS * SLOTS if PAIRS * SLOTS > 16 else 16
    k = tl.arange(0, K)
    return y0 + k // (SLOTS * UB), u0 + k // SLOTS % UB, k % SLOTS


@triton.jit
def left_of(reading, x, y, real, row, column, way, X, WAYS: tl.constexpr, XP: tl.constexpr):
    """L at targets x, y that are `real` and slots row, column, way."""
    own = real & (y == row)
    stored = own & (way < WAYS) & (column < X)
    values = tl.load(reading + ((y * X + x) * XP + column) * WAYS + way, mask=stored, other=0.0)
    return tl.where(own & (way == WAYS) & (x == column), 1.0, values)


@triton.jit
def right_places(u, v, row, way, Y, WAYS: tl.constexpr, YP: tl.constexpr):
    """Where R is in its table."""
    return ((u * Y + row) * (WAYS + 1) + way) * YP + v


@triton.jit
def right_of(turning, u, v, row, column, way, X, Y, WAYS: tl.constexpr, YP: tl.constexpr):
    """R at slots row, column, way and sources u, v."""
    stored = (u == column) & (u < X) & (row < Y) & (way <= WAYS)
    return tl.load(turning + right_places(u, v, row, way, Y, WAYS, YP), mask=stored, other=0.0)
