"""D-mode of chirality L: a tile of the gating matrix, formed in registers from gates by two short scans.

A path goes down the column u of its source v, turns once, and runs along the row y of its target x. So for a target row
and a source column each orientation has rank one in (x, v), and paths that never turn come on top:

    A[y, x, u] = M_l(x, y) prod_{u < k < x} T_rl(k, y)                        reading
    C[y, u, v] = prod_{v < k < y} T_du(u, k) S_d(u, v)                        arriving
    B[y, u, v] = T_ru(u, y) C[y, u, v] + [y = v] S_r(u, y)                    turning
    E[y, u, v] = sum over orientations of M_u(u, y) C + [y = v] D(u, y)       staying
    G[y, x, u, v] = sum over orientations of A B + [x = u] E

Orientation o walks X backwards where o & 1 and Y backwards where o & 2; gates are [B,O,X,Y].
"""

import triton
import triton.language as tl


@triton.jit
def reading_of(across, mark, y0, u0, X, Y, YB: tl.constexpr, XP: tl.constexpr, UB: tl.constexpr, BACK: tl.constexpr):
    """A as [YB, XP, UB]."""
    y, x = (y0 + tl.arange(0, YB))[:, None, None], tl.arange(0, XP)[None, :, None]
    u = (u0 + tl.arange(0, UB))[None, None, :]
    marks = tl.load(mark + x * Y + y, mask=(x < X) & (y < Y), other=0.0)
    if BACK:
        near = tl.load(across + (x + 1) * Y + y, mask=(x + 1 < X) & (y < Y), other=1.0)
        line = tl.cumprod(tl.where(x + 1 < u, near, 1.0), 1, reverse=True)
        return tl.where(x < u, marks * line, 0.0)
    else:
        near = tl.load(across + (x - 1) * Y + y, mask=(x >= 1) & (x - 1 < X) & (y < Y), other=1.0)
        line = tl.cumprod(tl.where(x - 1 > u, near, 1.0), 1)
        return tl.where(x > u, marks * line, 0.0)


@triton.jit
def arriving_of(down, source, y0, u0, X, Y, YB: tl.constexpr, UB: tl.constexpr, YP: tl.constexpr, BACK: tl.constexpr):
    """C as [YB, UB, YP]."""
    y, u = (y0 + tl.arange(0, YB))[:, None, None], (u0 + tl.arange(0, UB))[None, :, None]
    v = tl.arange(0, YP)[None, None, :]
    inside = (u < X) & (v < Y)
    sources = tl.load(source + u * Y + v, mask=inside, other=0.0)
    if BACK:
        near = tl.load(down + u * Y + v - 1, mask=inside & (v >= 1), other=1.0)
        line = tl.cumprod(tl.where(v - 1 > y, near, 1.0), 2)
        return tl.where(v > y, sources * line, 0.0)
    else:
        near = tl.load(down + u * Y + v + 1, mask=inside & (v + 1 < Y), other=1.0)
        line = tl.cumprod(tl.where(v + 1 < y, near, 1.0), 2, reverse=True)
        return tl.where(v < y, sources * line, 0.0)


@triton.jit
def at_corner(gate, y0, u0, X, Y, YB: tl.constexpr, UB: tl.constexpr):
    """[YB, UB, 1]: a gate at (u, y), where a path leaves the column of its source."""
    y, u = (y0 + tl.arange(0, YB))[:, None, None], (u0 + tl.arange(0, UB))[None, :, None]
    return tl.load(gate + u * Y + y, mask=(u < X) & (y < Y), other=0.0)


@triton.jit
def same_row(y0, YB: tl.constexpr, YP: tl.constexpr):
    """[YB, 1, YP]: whether y = v."""
    return (y0 + tl.arange(0, YB))[:, None, None] == tl.arange(0, YP)[None, None, :]


@triton.jit
def orientation(
    source_r, source_d, across, down, turn, mark_l, mark_u, y0, u0, X, Y, WAY: tl.constexpr,
    YB: tl.constexpr, XP: tl.constexpr, UB: tl.constexpr, YP: tl.constexpr,
):  # fmt: skip
    """A, B and the part of E of one orientation, to whose gates the pointers lead."""
    arriving = arriving_of(down, source_d, y0, u0, X, Y, YB, UB, YP, WAY // 2 == 1)
    starting = tl.where(same_row(y0, YB, YP), at_corner(source_r, y0, u0, X, Y, YB, UB), 0.0)
    turning = at_corner(turn, y0, u0, X, Y, YB, UB) * arriving + starting
    reading = reading_of(across, mark_l, y0, u0, X, Y, YB, XP, UB, WAY % 2 == 1)
    return reading, turning, at_corner(mark_u, y0, u0, X, Y, YB, UB) * arriving
