"""P-mode, quadratic: masked attention whose mask is formed column by column on a walk, and never reaches memory.

Nodes of a tile are whole columns: of targets, from which the walk goes against the signal, or of sources, from which it
goes with it. With a = T_rl, b = T_du, m the mark, and R[y, v] the product of b strictly between rows v and y of a
column, the weights of the sources (u, v) of a column on the targets follow from one carry,

    state = E a + [target in this column] m         what n(u, y), the sum of what arrives, weighs, but for moves down
    moved = state R                                 the same of what leaves (u, v) downwards
    G     = E S_r + moved S_d
    E    <- state + b moved                         what leaves the column before weighs here

and those on the targets of a column, from its own sources, from the dual one,

    state = J + (J b + [source in this column] S_d) Rᵀ,      Gᵀ = state m,      J <- state a + [in this column] S_r

    H = (G ⊙ Q Kᵀ) V        dP = dH Vᵀ,  dG = Q Kᵀ ⊙ dP,  dQ = (dP ⊙ G) K,  dK = (dP ⊙ G)ᵀ Q,  dV = (G ⊙ Q Kᵀ)ᵀ dH

Orientation o walks X backwards where o & 1 and Y backwards where o & 2; each has a walk of its own. The direction along
Y is a compile-time number, since scans need it; that along X is not, which halves the code.
"""

import triton
import triton.language as tl

from plstm_torch.ops._plstm_2d.triton.nodes import product_of, rows_of
from plstm_torch.ops._triton.dots import mm, mm_wide


@triton.jit
def _between(transition, Y, YP: tl.constexpr, BACK: tl.constexpr):
    """R as [y, v], zero unless y comes after v on the walk down, or with BACK up, a column."""
    y, v, k = tl.arange(0, YP)[:, None], tl.arange(0, YP)[None, :], tl.arange(0, YP)
    if BACK:
        near = tl.load(transition + k + 1, mask=k + 1 < Y, other=1.0)
        return tl.where(y < v, tl.cumprod(tl.where(y + 1 < v, near[:, None], 1.0), 0, reverse=True), 0.0)
    else:
        near = tl.load(transition + k - 1, mask=(k >= 1) & (k - 1 < Y), other=1.0)
        return tl.where(y > v, tl.cumprod(tl.where(y - 1 > v, near[:, None], 1.0), 0), 0.0)


@triton.jit
def _of_column(gate, Y, YP: tl.constexpr):
    """[1, YP]: a gate along a column, to whose first node the pointer leads."""
    y = tl.arange(0, YP)
    return tl.load(gate + y, mask=y < Y, other=0.0)[None, :]


@triton.jit
def _against(carry, own, across, down, Y, YP: tl.constexpr, BACK: tl.constexpr, EXACT: tl.constexpr):
    """State, moved and the next E of one column of sources."""
    state = carry * _of_column(across, Y, YP) + own
    moved = mm(state, _between(down, Y, YP, BACK), tl.zeros_like(state), EXACT)
    return state, moved, state + _of_column(down, Y, YP) * moved


@triton.jit
def _along(carry, own_r, own_d, across, down, Y, YP: tl.constexpr, BACK: tl.constexpr, EXACT: tl.constexpr):
    """State and the next J of one column of targets: what moves down is Rᵀ, which is R of the other direction."""
    moving = carry * _of_column(down, Y, YP) + own_d
    state = mm(moving, _between(down, Y, YP, not BACK), carry, EXACT)
    return state, state * _of_column(across, Y, YP) + own_r


@triton.jit
def _tile(x0, X, Y, XB: tl.constexpr, YP: tl.constexpr):
    """Columns and rows of the nodes of a tile, and which of them exist."""
    p = tl.arange(0, XB * YP)
    x, y = x0 + p // YP, p % YP
    return x, y, (x < X) & (y < Y)


@triton.jit(do_not_specialize=["X", "Y", "tiles"])
def directed_output(
    query, key, value, source_r, source_d, across, down, mark, direct, output,
    query_batch, query_x, query_y, query_channel, key_batch, key_x, key_y, key_channel,
    value_batch, value_x, value_y, value_channel, X, Y, DK, DV, tiles,
    WAYS: tl.constexpr, XB: tl.constexpr, YP: tl.constexpr, BLOCK: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr, EXACT: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """One program has XB columns of targets and a block of channels."""
    b, x0 = tl.program_id(0).to(tl.int64) // tiles, (tl.program_id(0) % tiles) * XB
    query += b * query_batch
    key += b * key_batch
    value += b * value_batch
    x, y, real = _tile(x0, X, Y, XB, YP)
    v = tl.arange(0, YP)
    iv = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    own_direct = tl.load(direct + b * X * Y + x * Y + y, mask=real, other=0.0)
    result = tl.zeros([XB * YP, BLOCK], ACC)
    for back in tl.static_range(2 if WAYS == 4 else 1):
        for flip in range(0, 2 if WAYS == 4 else 1):
            gates = (b * WAYS + 2 * back + flip) * X * Y
            marks = tl.load(mark + gates + x * Y + y, mask=real, other=0.0)
            carry = tl.zeros([XB * YP, YP], ACC)
            count = tl.where(flip == 0, tl.minimum(x0 + XB, X), X - x0)
            for step in range(0, count):
                u = tl.where(flip == 0, count - 1 - step, x0 + step)
                column = gates + u * Y
                here = (x == u)[:, None] & (y[:, None] == v[None, :])
                before = carry
                own = tl.where(here, marks[:, None], 0.0)
                _, moved, carry = _against(carry, own, across + column, down + column, Y, YP, back == 1, EXACT)
                gating = before * _of_column(source_r + column, Y, YP) + moved * _of_column(source_d + column, Y, YP)
                if back == 0 and flip == 0:
                    gating += tl.where(here, own_direct[:, None], 0.0)
                scores = product_of(
                    query, x * query_x + y * query_y, real, query_channel,
                    key, u * key_x + v * key_y, v < Y, key_channel,
                    DK, XB * YP, YP, BLOCK, ACC, OPERAND, VALUES,
                )  # fmt: skip
                values = rows_of(value, u * value_x + v * value_y, v < Y, iv, value_channel, DV, OPERAND)
                result = mm_wide(scores * gating, values, result, OPERAND, VALUES, SPLIT)
    places = output + b * X * Y * DV + (x * Y + y)[:, None] * DV + iv[None, :]
    tl.store(places, result.to(output.dtype.element_ty), mask=real[:, None] & (iv < DV)[None, :])


@triton.jit
def _add(place, values, Y, YP: tl.constexpr):
    """Add [YP] to a column of this program's own share of a gradient."""
    y = tl.arange(0, YP)
    tl.store(place + y, tl.load(place + y, mask=y < Y, other=0.0) + values, mask=y < Y)


@triton.jit(do_not_specialize=["X", "Y", "tiles", "shares"])
def directed_targets(
    query, key, value, grad, source_r, source_d, across, down, mark, direct,
    d_query, d_source_r, d_source_d, d_across, d_down, d_mark, d_direct, carries,
    query_batch, query_x, query_y, query_channel, key_batch, key_x, key_y, key_channel,
    value_batch, value_x, value_y, value_channel, grad_batch, grad_x, grad_y, grad_channel, X, Y, DK, DV, tiles, shares,
    WAYS: tl.constexpr, XB: tl.constexpr, YP: tl.constexpr, BLOCK: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Gradients of query, mark and direct, and this program's share [shares,B,O,X,Y] of those of the other gates.

    A program takes every `shares`-th tile of a grid. For each orientation it walks away from the targets and keeps E of
    every column in memory of its own, then walks back:

        d_moved = dG S_d + b dE,   d_state = dE + d_moved Rᵀ,   dE <- d_state a + dG S_r
        dS_r = sum dG E,   dS_d = sum dG moved,   da = sum d_state E,   db = sum d_state moved,   dm = own d_state
    """
    b, share = tl.program_id(0).to(tl.int64) // shares, tl.program_id(0) % shares
    batch = tl.num_programs(0) // shares
    first = tl.program_id(1) == 0  # gradients of gates are the same for every block of channels
    query += b * query_batch
    key += b * key_batch
    value += b * value_batch
    grad += b * grad_batch
    v, ik = tl.arange(0, YP), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    program = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    kept = carries + program * X * (XB * YP * YP) + tl.arange(0, XB * YP)[:, None] * YP + v[None, :]
    for tile in range(share, tiles, shares):
        x0 = tile * XB
        x, y, real = _tile(x0, X, Y, XB, YP)
        own_direct = tl.load(direct + b * X * Y + x * Y + y, mask=real, other=0.0)
        result, of_direct = tl.zeros([XB * YP, BLOCK], ACC), tl.zeros([XB * YP], ACC)
        for back in tl.static_range(2 if WAYS == 4 else 1):
            for flip in range(0, 2 if WAYS == 4 else 1):
                gates, into = (
                    (b * WAYS + 2 * back + flip) * X * Y,
                    ((share * batch + b) * WAYS + 2 * back + flip) * X * Y,
                )
                marks = tl.load(mark + gates + x * Y + y, mask=real, other=0.0)
                carry = tl.zeros([XB * YP, YP], ACC)
                count = tl.where(flip == 0, tl.minimum(x0 + XB, X), X - x0)
                for step in range(0, count):
                    u = tl.where(flip == 0, count - 1 - step, x0 + step)
                    column = gates + u * Y
                    here = (x == u)[:, None] & (y[:, None] == v[None, :])
                    tl.store(kept + u * (XB * YP * YP), carry)
                    own = tl.where(here, marks[:, None], 0.0)
                    _, _, carry = _against(carry, own, across + column, down + column, Y, YP, back == 1, EXACT)
                tl.debug_barrier()
                d_carry, of_mark = tl.zeros([XB * YP, YP], ACC), tl.zeros([XB * YP], ACC)
                for step in range(0, count):
                    u = tl.where(flip == 0, step, X - 1 - step)
                    column = gates + u * Y
                    here = (x == u)[:, None] & (y[:, None] == v[None, :])
                    carry = tl.load(kept + u * (XB * YP * YP))
                    own = tl.where(here, marks[:, None], 0.0)
                    _, moved, _ = _against(carry, own, across + column, down + column, Y, YP, back == 1, EXACT)
                    right, below = _of_column(source_r + column, Y, YP), _of_column(source_d + column, Y, YP)
                    gating = carry * right + moved * below
                    if back == 0 and flip == 0:
                        gating += tl.where(here, own_direct[:, None], 0.0)
                    scores = product_of(
                        query, x * query_x + y * query_y, real, query_channel,
                        key, u * key_x + v * key_y, v < Y, key_channel,
                        DK, XB * YP, YP, BLOCK, ACC, OPERAND, VALUES,
                    )  # fmt: skip
                    d_weights = product_of(
                        grad, x * grad_x + y * grad_y, real, grad_channel,
                        value, u * value_x + v * value_y, v < Y, value_channel,
                        DV, XB * YP, YP, BLOCK, ACC, OPERAND, VALUES,
                    )  # fmt: skip
                    keys = rows_of(key, u * key_x + v * key_y, v < Y, ik, key_channel, DK, OPERAND)
                    result = mm((d_weights * gating).to(OPERAND), keys, result, VALUES)
                    d_gating = scores * d_weights
                    if back == 0 and flip == 0:
                        of_direct += tl.sum(tl.where(here, d_gating, 0.0), 1)
                    d_moved = d_gating * below + _of_column(down + column, Y, YP) * d_carry
                    d_state = mm(d_moved, _between(down + column, Y, YP, back == 0), d_carry, EXACT)
                    of_mark += tl.sum(tl.where(here, d_state, 0.0), 1)
                    if first:
                        _add(d_source_r + into + u * Y, tl.sum(d_gating * carry, 0), Y, YP)
                        _add(d_source_d + into + u * Y, tl.sum(d_gating * moved, 0), Y, YP)
                        _add(d_across + into + u * Y, tl.sum(d_state * carry, 0), Y, YP)
                        _add(d_down + into + u * Y, tl.sum(d_state * moved, 0), Y, YP)
                    d_carry = d_state * _of_column(across + column, Y, YP) + d_gating * right
                if first:
                    tl.store(d_mark + gates + x * Y + y, of_mark, mask=real)
                tl.debug_barrier()
        if first:
            tl.store(d_direct + b * X * Y + x * Y + y, of_direct, mask=real)
        places = d_query + b * X * Y * DK + (x * Y + y)[:, None] * DK + ik[None, :]
        tl.store(places, result.to(d_query.dtype.element_ty), mask=real[:, None] & (ik < DK)[None, :])


@triton.jit(do_not_specialize=["X", "Y", "tiles"])
def directed_sources(
    query, key, value, grad, source_r, source_d, across, down, mark, direct, d_key, d_value,
    query_batch, query_x, query_y, query_channel, key_batch, key_x, key_y, key_channel,
    value_batch, value_x, value_y, value_channel, grad_batch, grad_x, grad_y, grad_channel, X, Y, DK, DV, tiles,
    WAYS: tl.constexpr, XB: tl.constexpr, YP: tl.constexpr, BLOCK: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Gradients of key and value: one program has XB columns of sources and a block of channels."""
    b, x0 = tl.program_id(0).to(tl.int64) // tiles, (tl.program_id(0) % tiles) * XB
    query += b * query_batch
    key += b * key_batch
    value += b * value_batch
    grad += b * grad_batch
    u, v, real = _tile(x0, X, Y, XB, YP)
    y = tl.arange(0, YP)
    channels = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    own_direct = tl.load(direct + b * X * Y + u * Y + v, mask=real, other=0.0)
    of_key, of_value = tl.zeros([XB * YP, BLOCK], ACC), tl.zeros([XB * YP, BLOCK], ACC)
    for back in tl.static_range(2 if WAYS == 4 else 1):
        for flip in range(0, 2 if WAYS == 4 else 1):
            gates = (b * WAYS + 2 * back + flip) * X * Y
            right = tl.load(source_r + gates + u * Y + v, mask=real, other=0.0)
            below = tl.load(source_d + gates + u * Y + v, mask=real, other=0.0)
            carry = tl.zeros([XB * YP, YP], ACC)
            count = tl.where(flip == 0, X - x0, tl.minimum(x0 + XB, X))
            for step in range(0, count):
                x = tl.where(flip == 0, x0 + step, count - 1 - step)
                column = gates + x * Y
                here = (u == x)[:, None] & (v[:, None] == y[None, :])
                own_r, own_d = tl.where(here, right[:, None], 0.0), tl.where(here, below[:, None], 0.0)
                state, carry = _along(carry, own_r, own_d, across + column, down + column, Y, YP, back == 1, EXACT)
                gating = state * _of_column(mark + column, Y, YP)
                if back == 0 and flip == 0:
                    gating += tl.where(here, own_direct[:, None], 0.0)
                scores = product_of(
                    key, u * key_x + v * key_y, real, key_channel,
                    query, x * query_x + y * query_y, y < Y, query_channel,
                    DK, XB * YP, YP, BLOCK, ACC, OPERAND, VALUES,
                )  # fmt: skip
                d_weights = product_of(
                    value, u * value_x + v * value_y, real, value_channel,
                    grad, x * grad_x + y * grad_y, y < Y, grad_channel,
                    DV, XB * YP, YP, BLOCK, ACC, OPERAND, VALUES,
                )  # fmt: skip
                grads = rows_of(grad, x * grad_x + y * grad_y, y < Y, channels, grad_channel, DV, OPERAND)
                of_value = mm((scores * gating).to(OPERAND), grads, of_value, VALUES)
                queries = rows_of(query, x * query_x + y * query_y, y < Y, channels, query_channel, DK, OPERAND)
                of_key = mm((d_weights * gating).to(OPERAND), queries, of_key, VALUES)
    node = (u * Y + v)[:, None]
    places = d_key + b * X * Y * DK + node * DK + channels[None, :]
    tl.store(places, of_key.to(d_key.dtype.element_ty), mask=real[:, None] & (channels < DK)[None, :])
    places = d_value + b * X * Y * DV + node * DV + channels[None, :]
    tl.store(places, of_value.to(d_value.dtype.element_ty), mask=real[:, None] & (channels < DV)[None, :])
