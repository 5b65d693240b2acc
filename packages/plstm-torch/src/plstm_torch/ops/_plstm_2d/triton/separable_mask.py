"""D-mode's mask of chirality L: two tables made from gates, tiles of it as products of theirs, and back to gates.

A path goes down the column u of its source v, turns once, and runs along the row y of its target x. So for a target row
and a source column each orientation has rank one in (x, v), and paths that never turn come on top:

    A[y, x, u] = M_l(x, y) prod_{u < k < x} T_rl(k, y)                        reading
    C[y, u, v] = prod_{v < k < y} T_du(u, k) S_d(u, v)                        arriving
    B[y, u, v] = T_ru(u, y) C[y, u, v] + [y = v] S_r(u, y)                    turning
    E[y, u, v] = sum over orientations of M_u(u, y) C + [y = v] D(u, y)       staying

Orientation o walks X backwards where o & 1 and Y backwards where o & 2; gates are [B,O,X,Y]. Tables are padded, so that
vectors of them are aligned: A is [B,Y,X,XP,O] by (y, x, u), zero from u = X on; B is [B,X,Y,O+1,YP] by (u, y, v), with
E behind the orientations, zero from v = Y on.

A tile has YB rows y' of targets and UB columns u' of sources. In each pair of them every orientation has rank one, and
paths that stay in the column x = u are one more, so the tile is a product over slots k = (y', u', way):

    G[(y, x), (u, v)] = sum over k of L[(y, x), k] R[k, (u, v)]
    L = [y = y'] A[y, x, u'], or [y = y'] [x = u'] where the way is that of E        R = [u = u'] B[y', u, v], or E

Places of the operands are broadcast, so either may be formed as it is or transposed. What the brackets leave out is
not loaded. Slots of a pair are filled up to a power of two.
"""

import triton
import triton.language as tl

from plstm_torch.ops._plstm_2d.triton.nodes import between, of_transition, on_line, put_on_line


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


@triton.jit
def _reading(across, mark, X, Y, XP: tl.constexpr, BACK: tl.constexpr):
    """A of one orientation in the row to whose first node the pointers lead, [x, u]."""
    return on_line(mark, X, Y, XP)[:, None] * between(across, X, Y, XP, BACK)


@triton.jit(do_not_specialize=["X", "Y"])
def reading_table(across, mark, reading, X, Y, WAYS: tl.constexpr, XP: tl.constexpr):
    """One program has a row."""
    b, y = tl.program_id(0).to(tl.int64) // Y, tl.program_id(0) % Y
    line, way = b * WAYS * X * Y + y, X * Y
    table = _reading(across + line, mark + line, X, Y, XP, False)
    if WAYS == 4:
        left = _reading(across + line + way, mark + line + way, X, Y, XP, True)
        up = _reading(across + line + 2 * way, mark + line + 2 * way, X, Y, XP, False)
        both = _reading(across + line + 3 * way, mark + line + 3 * way, X, Y, XP, True)
        table = tl.reshape(tl.join(tl.join(table, up), tl.join(left, both)), [XP, XP * WAYS])
    x, place = tl.arange(0, XP)[:, None], tl.arange(0, XP * WAYS)[None, :]
    reading += (b * Y + y) * X * XP * WAYS
    inside = tl.where(place // WAYS < X, table, 0.0)
    tl.store(reading + x * (XP * WAYS) + place, inside, mask=(x < X) & (place >= 0))


@triton.jit(do_not_specialize=["X", "Y"])
def turning_table(
    source_r, source_d, down, turn, mark_u, direct, turning, X, Y, WAYS: tl.constexpr, YP: tl.constexpr
):  # fmt: skip
    """One program has a column."""
    b, u = tl.program_id(0).to(tl.int64) // X, tl.program_id(0) % X
    y, v = tl.arange(0, YP)[:, None], tl.arange(0, YP)[None, :]
    turning += (b * X + u) * Y * ((WAYS + 1) * YP)
    places, real = y * ((WAYS + 1) * YP) + v, (y < Y) & (v >= 0)
    staying = tl.where(y == v, on_line(direct + (b * X + u) * Y, Y, 1, YP)[:, None], 0.0)
    for o in tl.static_range(WAYS):
        line = ((b * WAYS + o) * X + u) * Y
        arriving = between(down + line, Y, 1, YP, o // 2 == 1) * on_line(source_d + line, Y, 1, YP)[None, :]
        starting = tl.where(y == v, on_line(source_r + line, Y, 1, YP)[:, None], 0.0)
        table = on_line(turn + line, Y, 1, YP)[:, None] * arriving + starting
        tl.store(turning + places + o * YP, table, mask=real)
        staying += on_line(mark_u + line, Y, 1, YP)[:, None] * arriving
    tl.store(turning + places + WAYS * YP, staying, mask=real)


@triton.jit(do_not_specialize=["X", "Y"])
def reading_gates(
    across, mark, d_reading, d_across, d_mark, X, Y, WAYS: tl.constexpr, XP: tl.constexpr,
    ACC: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Gradients of the gates of a row from that of A; one program has the orientations of one direction along Y."""
    b, y = tl.program_id(0).to(tl.int64) // Y, tl.program_id(0) % Y
    x, u = tl.arange(0, XP)[:, None], tl.arange(0, XP)[None, :]
    d_reading += (b * Y + y) * X * XP * WAYS
    for back in tl.static_range(2 if WAYS == 4 else 1):
        o = back + 2 * tl.program_id(1)
        line = (b * WAYS + o) * X * Y + y
        decay = between(across + line, X, Y, XP, back == 1)
        grad = tl.load(d_reading + (x * XP + u) * WAYS + o, mask=(x < X) & (u < X), other=0.0)
        put_on_line(d_mark + line, tl.sum(grad * decay, 1), X, Y, XP)
        d_decay = grad * on_line(mark + line, X, Y, XP)[:, None]
        d_decay = tl.where(x < u if back == 1 else x > u, d_decay, 0.0)
        other_way = between(across + line, X, Y, XP, back == 0)
        put_on_line(d_across + line, of_transition(decay, other_way, d_decay, ACC, EXACT), X, Y, XP)


@triton.jit(do_not_specialize=["X", "Y"])
def turning_gates(
    source_d, down, turn, mark_u, d_turning, d_source_r, d_source_d, d_down, d_turn, d_mark_u, d_direct, X, Y,
    WAYS: tl.constexpr, YP: tl.constexpr, ACC: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Gradients of the gates of a column from those of B and E; one program has those of one direction along X."""
    b, u = tl.program_id(0).to(tl.int64) // X, tl.program_id(0) % X
    y, v = tl.arange(0, YP)[:, None], tl.arange(0, YP)[None, :]
    places, real = (b * X + u) * Y * ((WAYS + 1) * YP) + y * ((WAYS + 1) * YP) + v, (y < Y) & (v < Y)
    d_staying = tl.load(d_turning + places + WAYS * YP, mask=real, other=0.0)
    own = tl.where(tl.program_id(1) == 0, Y, 0)  # one of them stores what they have in common
    put_on_line(d_direct + (b * X + u) * Y, tl.sum(tl.where(y == v, d_staying, 0.0), 1), own, 1, YP)
    for back in tl.static_range(2 if WAYS == 4 else 1):
        o = 2 * back + tl.program_id(1)
        line = ((b * WAYS + o) * X + u) * Y
        decay = between(down + line, Y, 1, YP, back == 1)
        sources = on_line(source_d + line, Y, 1, YP)[None, :]
        grad = tl.load(d_turning + places + o * YP, mask=real, other=0.0)
        put_on_line(d_source_r + line, tl.sum(tl.where(y == v, grad, 0.0), 1), Y, 1, YP)
        put_on_line(d_turn + line, tl.sum(grad * decay * sources, 1), Y, 1, YP)
        put_on_line(d_mark_u + line, tl.sum(d_staying * decay * sources, 1), Y, 1, YP)
        d_arriving = grad * on_line(turn + line, Y, 1, YP)[:, None]
        d_arriving += d_staying * on_line(mark_u + line, Y, 1, YP)[:, None]
        put_on_line(d_source_d + line, tl.sum(d_arriving * decay, 0), Y, 1, YP)
        d_decay = tl.where(y < v if back == 1 else y > v, d_arriving * sources, 0.0)
        other_way = between(down + line, Y, 1, YP, back == 0)
        put_on_line(d_down + line, of_transition(decay, other_way, d_decay, ACC, EXACT), Y, 1, YP)
