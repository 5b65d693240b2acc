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

Orientation o walks X backwards where o & 1 and Y backwards where o & 2. The two that walk X alike are walked together,
so that scores are formed once for each direction along X. R and Rᵀ of every column are tables [B,O,X,YP,YP], since all
programs read them. With HELD all channels of the nodes that stay are in registers.
"""

import triton
import triton.language as tl

from plstm_torch.ops._plstm_2d.triton.nodes import between, columns_of, product_of, rows_of
from plstm_torch.ops._triton.dots import mm, mm_wide


@triton.jit(do_not_specialize=["X", "Y"])
def decay_table(down, decays, X, Y, WAYS: tl.constexpr, YP: tl.constexpr, TURNED: tl.constexpr):
    """R, or if TURNED Rᵀ [B,O,X,YP,YP]; one program has a column."""
    b, x = tl.program_id(0).to(tl.int64) // X, tl.program_id(0) % X
    places = tl.arange(0, YP)[:, None] * YP + tl.arange(0, YP)[None, :]
    for o in tl.static_range(WAYS):
        column = (b * WAYS + o) * X + x
        decay = between(down + column * Y, Y, 1, YP, o // 2 == (0 if TURNED else 1))
        tl.store(decays + column * (YP * YP) + places, decay)


@triton.jit
def _of_column(gate, Y, YP: tl.constexpr):
    """[1, YP]: a gate along a column, to whose first node the pointer leads."""
    y = tl.arange(0, YP)[None, :]
    return tl.load(gate + y, mask=y < Y, other=0.0)


@triton.jit
def _transposed(square, YP: tl.constexpr):
    """What is stored the other way: operands of tf32 lie along the contracted axis."""
    return tl.load(square + tl.arange(0, YP)[None, :] * YP + tl.arange(0, YP)[:, None])


@triton.jit
def _against(carry, own, source_r, source_d, across, down, turned, Y, YP: tl.constexpr, EXACT: tl.constexpr):
    """Moved, the mask and the next E of one column of sources."""
    state = carry * _of_column(across, Y, YP) + own
    moved = mm(state, _transposed(turned, YP), tl.zeros_like(state), EXACT)
    gating = carry * _of_column(source_r, Y, YP) + moved * _of_column(source_d, Y, YP)
    return moved, gating, state + _of_column(down, Y, YP) * moved


@triton.jit
def _back(
    d_gating, d_carry, source_r, source_d, across, down, decay, Y, YP: tl.constexpr, EXACT: tl.constexpr
):  # fmt: skip
    """Adjoint of `_against`: of the state, and of E."""
    d_moved = d_gating * _of_column(source_d, Y, YP) + _of_column(down, Y, YP) * d_carry
    d_state = mm(d_moved, _transposed(decay, YP), d_carry, EXACT)
    return d_state, d_state * _of_column(across, Y, YP) + d_gating * _of_column(source_r, Y, YP)


@triton.jit
def _along(carry, own_r, own_d, mark, across, down, decay, Y, YP: tl.constexpr, EXACT: tl.constexpr):
    """The mask and the next J of one column of targets."""
    moving = carry * _of_column(down, Y, YP) + own_d
    state = mm(moving, _transposed(decay, YP), carry, EXACT)
    return state * _of_column(mark, Y, YP), state * _of_column(across, Y, YP) + own_r


@triton.jit
def _tile(x0, X, Y, XB: tl.constexpr, YP: tl.constexpr):
    """Columns and rows of the nodes of a tile, and which of them exist."""
    p = tl.arange(0, XB * YP)
    x, y = x0 + p // YP, p % YP
    return x, y, (x < X) & (y < Y)


@triton.jit(do_not_specialize=["X", "Y", "tiles"])
def directed_output(
    query, key, value, source_r, source_d, across, down, mark, direct, turned, output,
    query_batch, query_x, query_y, query_channel, key_batch, key_x, key_y, key_channel,
    value_batch, value_x, value_y, value_channel, X, Y, DK, DV, tiles,
    WAYS: tl.constexpr, XB: tl.constexpr, YP: tl.constexpr, BLOCK: tl.constexpr, HELD: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr, EXACT: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """One program has XB columns of targets and a block of channels."""
    b, x0 = tl.program_id(0).to(tl.int64) // tiles, (tl.program_id(0) % tiles) * XB
    query += b * query_batch
    key += b * key_batch
    value += b * value_batch
    x, y, real = _tile(x0, X, Y, XB, YP)
    v, ones = tl.arange(0, YP), tl.arange(0, BLOCK)
    iv = tl.program_id(1) * BLOCK + ones
    own_direct = tl.load(direct + b * X * Y + x * Y + y, mask=real, other=0.0)
    result = tl.zeros([XB * YP, BLOCK], ACC)
    if HELD:
        queries = rows_of(query, x * query_x + y * query_y, real, ones, query_channel, DK, OPERAND)
    for flip in range(0, 2 if WAYS == 4 else 1):
        of_way, other_way = (b * WAYS + flip) * X, (b * WAYS + flip + 2) * X
        marks = tl.load(mark + of_way * Y + x * Y + y, mask=real, other=0.0)
        carry = tl.zeros([XB * YP, YP], ACC)
        if WAYS == 4:
            other_marks = tl.load(mark + other_way * Y + x * Y + y, mask=real, other=0.0)
            other_carry = tl.zeros([XB * YP, YP], ACC)
        count = tl.where(flip == 0, tl.minimum(x0 + XB, X), X - x0)
        for step in range(0, count):
            u = tl.where(flip == 0, count - 1 - step, x0 + step)
            here = (x == u)[:, None] & (y[:, None] == v[None, :])
            c = of_way + u
            _, gating, carry = _against(
                carry, tl.where(here, marks[:, None], 0.0), source_r + c * Y, source_d + c * Y, across + c * Y,
                down + c * Y, turned + c * (YP * YP), Y, YP, EXACT,
            )  # fmt: skip
            if WAYS == 4:
                c = other_way + u
                _, other_gating, other_carry = _against(
                    other_carry, tl.where(here, other_marks[:, None], 0.0), source_r + c * Y, source_d + c * Y,
                    across + c * Y, down + c * Y, turned + c * (YP * YP), Y, YP, EXACT,
                )  # fmt: skip
                gating += other_gating
            gating += tl.where(here & (flip == 0), own_direct[:, None], 0.0)
            if HELD:
                keys = columns_of(key, u * key_x + v * key_y, v < Y, ones, key_channel, DK, OPERAND)
                scores = mm(queries, keys, tl.zeros([XB * YP, YP], ACC), VALUES)
            else:
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
def _add(place, part, limit, of_r, of_d, of_across, of_down, YP: tl.constexpr):
    """Add sums over targets to a column of this program's own share of four gradients, `part` numbers apart."""
    sums = tl.sum(tl.join(tl.join(of_r, of_d), tl.join(of_across, of_down)), 0)
    y, gate = tl.arange(0, YP)[:, None, None], tl.arange(0, 2)[None, :, None] + 2 * tl.arange(0, 2)[None, None, :]
    place += y + gate * part
    mask = (y < limit) & (gate >= 0)
    tl.store(place, tl.load(place, mask=mask, other=0.0) + sums, mask=mask)


@triton.jit(do_not_specialize=["X", "Y", "tiles", "shares"])
def directed_targets(
    query, key, value, grad, source_r, source_d, across, down, mark, direct, turned, decays,
    d_query, d_gates, d_mark, d_direct, carries,
    query_batch, query_x, query_y, query_channel, key_batch, key_x, key_y, key_channel,
    value_batch, value_x, value_y, value_channel, grad_batch, grad_x, grad_y, grad_channel, X, Y, DK, DV, tiles, shares,
    WAYS: tl.constexpr, XB: tl.constexpr, YP: tl.constexpr, BLOCK: tl.constexpr, HELD: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Gradients of query, mark and direct, and this program's share of d_gates [4,shares,B,O,X,Y] of the other gates.

    A program takes every `shares`-th tile of a grid. For each direction along X it walks away from the targets and
    keeps E of every step in memory of its own, then walks back:

        d_moved = dG S_d + b dE,   d_state = dE + d_moved Rᵀ,   dE <- d_state a + dG S_r
        dS_r = sum dG E,   dS_d = sum dG moved,   da = sum d_state E,   db = sum d_state moved,   dm = own d_state
    """
    NODES: tl.constexpr = XB * YP
    b, share = tl.program_id(0).to(tl.int64) // shares, tl.program_id(0) % shares
    batch, part = tl.num_programs(0) // shares, tl.num_programs(0).to(tl.int64) * WAYS * X * Y
    limit = tl.where(tl.program_id(1) == 0, Y, 0)  # gradients of gates are the same for every block of channels
    query += b * query_batch
    key += b * key_batch
    value += b * value_batch
    grad += b * grad_batch
    v, ones = tl.arange(0, YP), tl.arange(0, BLOCK)
    ik = tl.program_id(1) * BLOCK + ones
    program = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    kept = carries + program * X * (2 * NODES * YP) + tl.arange(0, NODES)[:, None] * YP + v[None, :]
    for tile in range(share, tiles, shares):
        x0 = tile * XB
        x, y, real = _tile(x0, X, Y, XB, YP)
        own_direct = tl.load(direct + b * X * Y + x * Y + y, mask=real, other=0.0)
        result, of_direct = tl.zeros([NODES, BLOCK], ACC), tl.zeros([NODES], ACC)
        if HELD:
            queries = rows_of(query, x * query_x + y * query_y, real, ones, query_channel, DK, OPERAND)
            grads = rows_of(grad, x * grad_x + y * grad_y, real, ones, grad_channel, DV, OPERAND)
        for flip in range(0, 2 if WAYS == 4 else 1):
            of_way, other_way = (b * WAYS + flip) * X, (b * WAYS + flip + 2) * X
            into = ((share * batch + b) * WAYS + flip) * X
            marks = tl.load(mark + of_way * Y + x * Y + y, mask=real, other=0.0)
            carry = tl.zeros([NODES, YP], ACC)
            if WAYS == 4:
                other_marks = tl.load(mark + other_way * Y + x * Y + y, mask=real, other=0.0)
                other_carry = tl.zeros([NODES, YP], ACC)
            count = tl.where(flip == 0, tl.minimum(x0 + XB, X), X - x0)
            for step in range(0, count):
                u = tl.where(flip == 0, count - 1 - step, x0 + step)
                here = (x == u)[:, None] & (y[:, None] == v[None, :])
                tl.store(kept + step * (2 * NODES * YP), carry)
                c = of_way + u
                _, _, carry = _against(
                    carry, tl.where(here, marks[:, None], 0.0), source_r + c * Y, source_d + c * Y, across + c * Y,
                    down + c * Y, turned + c * (YP * YP), Y, YP, EXACT,
                )  # fmt: skip
                if WAYS == 4:
                    tl.store(kept + step * (2 * NODES * YP) + NODES * YP, other_carry)
                    c = other_way + u
                    _, _, other_carry = _against(
                        other_carry, tl.where(here, other_marks[:, None], 0.0), source_r + c * Y, source_d + c * Y,
                        across + c * Y, down + c * Y, turned + c * (YP * YP), Y, YP, EXACT,
                    )  # fmt: skip
            tl.debug_barrier()
            d_carry, of_mark = tl.zeros([NODES, YP], ACC), tl.zeros([NODES], ACC)
            if WAYS == 4:
                d_other, of_other_mark = tl.zeros([NODES, YP], ACC), tl.zeros([NODES], ACC)
            for step in range(0, count):
                u = tl.where(flip == 0, step, X - 1 - step)
                here = (x == u)[:, None] & (y[:, None] == v[None, :])
                carry = tl.load(kept + (count - 1 - step) * (2 * NODES * YP))
                c = of_way + u
                moved, gating, _ = _against(
                    carry, tl.where(here, marks[:, None], 0.0), source_r + c * Y, source_d + c * Y, across + c * Y,
                    down + c * Y, turned + c * (YP * YP), Y, YP, EXACT,
                )  # fmt: skip
                if WAYS == 4:
                    other_carry = tl.load(kept + (count - 1 - step) * (2 * NODES * YP) + NODES * YP)
                    c = other_way + u
                    other_moved, other_gating, _ = _against(
                        other_carry, tl.where(here, other_marks[:, None], 0.0), source_r + c * Y, source_d + c * Y,
                        across + c * Y, down + c * Y, turned + c * (YP * YP), Y, YP, EXACT,
                    )  # fmt: skip
                    gating += other_gating
                gating += tl.where(here & (flip == 0), own_direct[:, None], 0.0)
                if HELD:
                    keys = columns_of(key, u * key_x + v * key_y, v < Y, ones, key_channel, DK, OPERAND)
                    scores = mm(queries, keys, tl.zeros([NODES, YP], ACC), VALUES)
                    values = columns_of(value, u * value_x + v * value_y, v < Y, ones, value_channel, DV, OPERAND)
                    d_weights = mm(grads, values, tl.zeros([NODES, YP], ACC), VALUES)
                else:
                    scores = product_of(
                        query, x * query_x + y * query_y, real, query_channel,
                        key, u * key_x + v * key_y, v < Y, key_channel,
                        DK, NODES, YP, BLOCK, ACC, OPERAND, VALUES,
                    )  # fmt: skip
                    d_weights = product_of(
                        grad, x * grad_x + y * grad_y, real, grad_channel,
                        value, u * value_x + v * value_y, v < Y, value_channel,
                        DV, NODES, YP, BLOCK, ACC, OPERAND, VALUES,
                    )  # fmt: skip
                keys_by_node = rows_of(key, u * key_x + v * key_y, v < Y, ik, key_channel, DK, OPERAND)
                result = mm((d_weights * gating).to(OPERAND), keys_by_node, result, VALUES)
                d_gating = scores * d_weights
                of_direct += tl.sum(tl.where(here & (flip == 0), d_gating, 0.0), 1)
                c = of_way + u
                d_state, d_carry = _back(
                    d_gating, d_carry, source_r + c * Y, source_d + c * Y, across + c * Y, down + c * Y,
                    decays + c * (YP * YP), Y, YP, EXACT,
                )  # fmt: skip
                of_mark += tl.sum(tl.where(here, d_state, 0.0), 1)
                _add(
                    d_gates + (into + u) * Y, part, limit,
                    d_gating * carry, d_gating * moved, d_state * carry, d_state * moved, YP,
                )  # fmt: skip
                if WAYS == 4:
                    c = other_way + u
                    d_state, d_other = _back(
                        d_gating, d_other, source_r + c * Y, source_d + c * Y, across + c * Y, down + c * Y,
                        decays + c * (YP * YP), Y, YP, EXACT,
                    )  # fmt: skip
                    of_other_mark += tl.sum(tl.where(here, d_state, 0.0), 1)
                    _add(
                        d_gates + (into + 2 * X + u) * Y, part, limit,
                        d_gating * other_carry, d_gating * other_moved, d_state * other_carry, d_state * other_moved,
                        YP,
                    )  # fmt: skip
            tl.store(d_mark + of_way * Y + x * Y + y, of_mark, mask=real & (y < limit))
            if WAYS == 4:
                tl.store(d_mark + other_way * Y + x * Y + y, of_other_mark, mask=real & (y < limit))
            tl.debug_barrier()
        tl.store(d_direct + b * X * Y + x * Y + y, of_direct, mask=real & (y < limit))
        places = d_query + b * X * Y * DK + (x * Y + y)[:, None] * DK + ik[None, :]
        tl.store(places, result.to(d_query.dtype.element_ty), mask=real[:, None] & (ik < DK)[None, :])


@triton.jit(do_not_specialize=["X", "Y", "tiles"])
def directed_sources(
    query, key, value, grad, source_r, source_d, across, down, mark, direct, decays, d_key, d_value,
    query_batch, query_x, query_y, query_channel, key_batch, key_x, key_y, key_channel,
    value_batch, value_x, value_y, value_channel, grad_batch, grad_x, grad_y, grad_channel, X, Y, DK, DV, tiles,
    WAYS: tl.constexpr, XB: tl.constexpr, YP: tl.constexpr, BLOCK: tl.constexpr, HELD: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Gradients of key and value: one program has XB columns of sources and a block of channels."""
    b, x0 = tl.program_id(0).to(tl.int64) // tiles, (tl.program_id(0) % tiles) * XB
    query += b * query_batch
    key += b * key_batch
    value += b * value_batch
    grad += b * grad_batch
    u, v, real = _tile(x0, X, Y, XB, YP)
    y, ones = tl.arange(0, YP), tl.arange(0, BLOCK)
    channels = tl.program_id(1) * BLOCK + ones
    own_direct = tl.load(direct + b * X * Y + u * Y + v, mask=real, other=0.0)
    of_key, of_value = tl.zeros([XB * YP, BLOCK], ACC), tl.zeros([XB * YP, BLOCK], ACC)
    if HELD:
        keys = rows_of(key, u * key_x + v * key_y, real, ones, key_channel, DK, OPERAND)
        values = rows_of(value, u * value_x + v * value_y, real, ones, value_channel, DV, OPERAND)
    for flip in range(0, 2 if WAYS == 4 else 1):
        of_way, other_way = (b * WAYS + flip) * X, (b * WAYS + flip + 2) * X
        right = tl.load(source_r + of_way * Y + u * Y + v, mask=real, other=0.0)
        below = tl.load(source_d + of_way * Y + u * Y + v, mask=real, other=0.0)
        carry = tl.zeros([XB * YP, YP], ACC)
        if WAYS == 4:
            other_right = tl.load(source_r + other_way * Y + u * Y + v, mask=real, other=0.0)
            other_below = tl.load(source_d + other_way * Y + u * Y + v, mask=real, other=0.0)
            other_carry = tl.zeros([XB * YP, YP], ACC)
        count = tl.where(flip == 0, X - x0, tl.minimum(x0 + XB, X))
        for step in range(0, count):
            x = tl.where(flip == 0, x0 + step, count - 1 - step)
            here = (u == x)[:, None] & (v[:, None] == y[None, :])
            c = of_way + x
            gating, carry = _along(
                carry, tl.where(here, right[:, None], 0.0), tl.where(here, below[:, None], 0.0),
                mark + c * Y, across + c * Y, down + c * Y, decays + c * (YP * YP), Y, YP, EXACT,
            )  # fmt: skip
            if WAYS == 4:
                c = other_way + x
                other_gating, other_carry = _along(
                    other_carry, tl.where(here, other_right[:, None], 0.0), tl.where(here, other_below[:, None], 0.0),
                    mark + c * Y, across + c * Y, down + c * Y, decays + c * (YP * YP), Y, YP, EXACT,
                )  # fmt: skip
                gating += other_gating
            gating += tl.where(here & (flip == 0), own_direct[:, None], 0.0)
            if HELD:
                queries = columns_of(query, x * query_x + y * query_y, y < Y, ones, query_channel, DK, OPERAND)
                scores = mm(keys, queries, tl.zeros([XB * YP, YP], ACC), VALUES)
                grads = columns_of(grad, x * grad_x + y * grad_y, y < Y, ones, grad_channel, DV, OPERAND)
                d_weights = mm(values, grads, tl.zeros([XB * YP, YP], ACC), VALUES)
            else:
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
            grads_by_node = rows_of(grad, x * grad_x + y * grad_y, y < Y, channels, grad_channel, DV, OPERAND)
            of_value = mm((scores * gating).to(OPERAND), grads_by_node, of_value, VALUES)
            queries_by_node = rows_of(query, x * query_x + y * query_y, y < Y, channels, query_channel, DK, OPERAND)
            of_key = mm((d_weights * gating).to(OPERAND), queries_by_node, of_key, VALUES)
    node = (u * Y + v)[:, None]
    places = d_key + b * X * Y * DK + node * DK + channels[None, :]
    tl.store(places, of_key.to(d_key.dtype.element_ty), mask=real[:, None] & (channels < DK)[None, :])
    places = d_value + b * X * Y * DV + node * DV + channels[None, :]
    tl.store(places, of_value.to(d_value.dtype.element_ty), mask=real[:, None] & (channels < DV)[None, :])
