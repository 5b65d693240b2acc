"""Border states from block to block: one launch for each antidiagonal of blocks, any scalar gates.

A block of SIDE x SIDE nodes has 2 SIDE border states C_j: those of its rows on the side where the signal enters, then
those of its columns. With its maps M (borders to nodes), S (nodes to borders) and T (borders to borders):

    H_n += sum_j M_jn Q_n C_j        C_j <- sum_a T_ja C_a + sum_n S_jn K_n ⊗ V_n

The adjoint is the same step in the other direction, with Q for K, dH for V, M for S and Tᵀ for T, and what it reads of
the states that come back is dV. What is left are sums within a block:

    dQ_n = sum_j M_jn (dH_n C_jᵀ)    dM_jn = Q_n · (dH_n C_jᵀ)        dT_ja = <dC_j, C_a>

and dK, dS alike from V and what comes back. The states of a grid are rows [X + Y, DK, DV]: those at its Y rows, then
those at its X columns. A step overwrites them in place; it may keep those it met.
"""

import triton
import triton.language as tl

from plstm_torch.ops._plstm_2d.triton.nodes import columns_of, rows_of
from plstm_torch.ops._triton.dots import mm, mm_by_wide, mm_wide


@triton.jit
def _place(i, j, low, o, NX, NY):
    """Where the block at step (i, j) of the walk of orientation o is; i counts from column `low` of the walk."""
    column = low + i
    return tl.where(o % 2 == 1, NX - 1 - column, column), tl.where(o // 2 == 1, NY - 1 - j, j)


@triton.jit
def _row(a, bx, by, Y, SIDE: tl.constexpr):
    """Row of the states where border state `a` of a block is."""
    return tl.where(a < SIDE, by * SIDE + a, Y + bx * SIDE + a - SIDE).to(tl.int64)


@triton.jit
def _states(states, a, bx, by, Y, DK, DV, ik, iv, SIDE: tl.constexpr):
    """Tiles [ik, iv] of border states a and a + 1."""
    tile, inside = ik[:, None] * DV + iv[None, :], (ik < DK)[:, None] & (iv < DV)[None, :]
    one = tl.load(states + _row(a, bx, by, Y, SIDE) * DK * DV + tile, mask=inside, other=0.0)
    return one, tl.load(states + _row(a + 1, bx, by, Y, SIDE) * DK * DV + tile, mask=inside, other=0.0)


@triton.jit
def _keep(entering, a, kept, one, two, ik, iv, DK, DV):
    """Stores those of border states a and a + 1 that are among the first `kept`."""
    tile, columns = ik[:, None] * DV + iv[None, :], (iv < DV)[None, :]
    entering += a * DK * DV
    # a mask has to come from blocks
    tl.store(entering + tile, one, mask=columns & (ik < tl.where(a < kept, DK, 0))[:, None])
    tl.store(entering + DK * DV + tile, two, mask=columns & (ik < tl.where(a + 1 < kept, DK, 0))[:, None])


@triton.jit
def _read_one(
    queries, state, reading, a, result, SIDE: tl.constexpr,
    OPERAND: tl.constexpr, VALUES: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Adds what the nodes read of border state a."""
    weights = tl.load(reading + a * SIDE * SIDE + tl.arange(0, SIDE * SIDE))
    return result + weights[:, None] * mm_by_wide(queries, state, tl.zeros_like(result), OPERAND, VALUES, SPLIT)


@triton.jit
def _written(
    keys, values, writing, a, state,
    SIDE: tl.constexpr, OPERAND: tl.constexpr, STATES: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Border state a with what the nodes write to it."""
    weights = tl.load(writing + a * SIDE * SIDE + tl.arange(0, SIDE * SIDE))
    return mm_wide(keys * weights[None, :], values, state, OPERAND, STATES, SPLIT)


@triton.jit
def _read(
    queries, reading, states, entering, kept, bx, by, Y, DK, DV, ik, iv, result,
    SIDE: tl.constexpr, READ: tl.constexpr, KEEP: tl.constexpr,
    OPERAND: tl.constexpr, VALUES: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Adds what the nodes read of the states that enter, if they do; keeps the first `kept` of those."""
    for first in range(0, 2 * SIDE, 4):
        # four at a time, so that their loads are under way together
        one, two = _states(states, first, bx, by, Y, DK, DV, ik, iv, SIDE)
        three, four = _states(states, first + 2, bx, by, Y, DK, DV, ik, iv, SIDE)
        if KEEP:
            _keep(entering, first, kept, one, two, ik, iv, DK, DV)
            _keep(entering, first + 2, kept, three, four, ik, iv, DK, DV)
        if READ:
            result = _read_one(queries, one, reading, first, result, SIDE, OPERAND, VALUES, SPLIT)
            result = _read_one(queries, two, reading, first + 1, result, SIDE, OPERAND, VALUES, SPLIT)
            result = _read_one(queries, three, reading, first + 2, result, SIDE, OPERAND, VALUES, SPLIT)
            result = _read_one(queries, four, reading, first + 3, result, SIDE, OPERAND, VALUES, SPLIT)
    return result


@triton.jit
def _pass_on(
    through, states, bx, by, Y, DK, DV, start, channel,
    SIDE: tl.constexpr, KEYS: tl.constexpr, BLOCK: tl.constexpr, CELLS: tl.constexpr, BACK: tl.constexpr,
    ACC: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    """States through the block: all borders at a time, CELLS rows of them after the other, so that in place is safe."""
    a, c, cell = tl.arange(0, 2 * SIDE)[:, None], tl.arange(0, 2 * SIDE)[None, :], tl.arange(0, CELLS * BLOCK)
    passing = tl.load(through + (c * 2 * SIDE + a if BACK else a * 2 * SIDE + c))
    rows, channels = states + _row(a, bx, by, Y, SIDE) * DK * DV, (channel + cell % BLOCK)[None, :]
    for d in range(0, KEYS, CELLS):
        dk = (start + d + cell // BLOCK)[None, :]
        inside = (a >= 0) & (dk < DK) & (channels < DV)
        state = tl.load(rows + (dk * DV + channels), mask=inside, other=0.0)
        moved = mm(passing, state, tl.zeros([2 * SIDE, CELLS * BLOCK], ACC), STATES)
        tl.store(rows + (dk * DV + channels), moved, mask=inside)


@triton.jit
def _store(states, a, bx, by, Y, DK, DV, ik, iv, one, two, SIDE: tl.constexpr):
    """Tiles [ik, iv] of border states a and a + 1."""
    tile, inside = ik[:, None] * DV + iv[None, :], (ik < DK)[:, None] & (iv < DV)[None, :]
    tl.store(states + _row(a, bx, by, Y, SIDE) * DK * DV + tile, one, mask=inside)
    tl.store(states + _row(a + 1, bx, by, Y, SIDE) * DK * DV + tile, two, mask=inside)


@triton.jit
def _write(
    keys, values, writing, states, bx, by, Y, DK, DV, ik, iv,
    SIDE: tl.constexpr, OPERAND: tl.constexpr, STATES: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Adds what the nodes write to the states."""
    for first in range(0, 2 * SIDE, 4):
        one, two = _states(states, first, bx, by, Y, DK, DV, ik, iv, SIDE)
        three, four = _states(states, first + 2, bx, by, Y, DK, DV, ik, iv, SIDE)
        one = _written(keys, values, writing, first, one, SIDE, OPERAND, STATES, SPLIT)
        two = _written(keys, values, writing, first + 1, two, SIDE, OPERAND, STATES, SPLIT)
        three = _written(keys, values, writing, first + 2, three, SIDE, OPERAND, STATES, SPLIT)
        four = _written(keys, values, writing, first + 3, four, SIDE, OPERAND, STATES, SPLIT)
        _store(states, first, bx, by, Y, DK, DV, ik, iv, one, two, SIDE)
        _store(states, first + 2, bx, by, Y, DK, DV, ik, iv, three, four, SIDE)


@triton.jit
def _kept(
    entering, b, o, i, j, column, by, NX, NY, DK, DV, count, period,
    WAYS: tl.constexpr, SIDE: tl.constexpr, CROSSING: tl.constexpr,
):  # fmt: skip
    """Where to keep the states that enter a block, and how many: all, or those that cross to a strip of the walk."""
    if CROSSING:
        strip = (b * ((NX - 1) // period) + column // period - 1) * WAYS + o
        crosses = (column > 0) & (column % period == 0)
        return entering + (strip * NY + by) * SIDE * DK * DV, tl.where(crosses, SIDE, 0)
    else:
        return entering + (((b * WAYS + o) * count + i) * NY + j) * 2 * SIDE * DK * DV, 2 * SIDE


@triton.jit(do_not_specialize=["NX", "NY", "low", "count", "period", "diagonal", "first", "width"])
def block_step(
    query, key, value, reading, writing, through, states, carried, entering,
    NX, NY, DK, DV, low, count, period, diagonal, first, width,
    WAYS: tl.constexpr, SIDE: tl.constexpr, KEYS: tl.constexpr, BLOCK: tl.constexpr, CELLS: tl.constexpr,
    BACK: tl.constexpr, READ: tl.constexpr, KEEP: tl.constexpr, CROSSING: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr, STATES: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """One block, one orientation and a block of channels of the values.

    Columns [low, low + count) of the walk make a strip; `diagonal` is one of its antidiagonals, with `width` blocks
    from column `first` on. BACK walks it from the far end. READ stores what nodes read, for each orientation by itself,
    KEEP the states that enter the block, as [B,WAYS,count,NY,2*SIDE,DK,DV], or if CROSSING only those that enter strips
    of `period` columns from the strip before, as [B,strips-1,WAYS,NY*SIDE,DK,DV].
    """
    b, o = tl.program_id(0).to(tl.int64) // width, tl.program_id(1) % WAYS
    i = first + tl.program_id(0) % width
    j = diagonal - i
    if BACK:
        i, j = count - 1 - i, NY - 1 - j
    bx, by = _place(i, j, low, o, NX, NY)
    X, Y, channel = NX * SIDE, NY * SIDE, tl.program_id(1) // WAYS * BLOCK
    way, iv, n = b * WAYS + o, channel + tl.arange(0, BLOCK), tl.arange(0, SIDE * SIDE)
    nodes, maps = ((b * NX + bx) * NY + by) * SIDE * SIDE, ((way * NX + bx) * NY + by) * 2 * SIDE
    states += way * (X + Y) * DK * DV
    at, kept = _kept(entering, b, o, i, j, low + i, by, NX, NY, DK, DV, count, period, WAYS, SIDE, CROSSING)
    reading, writing = reading + maps * SIDE * SIDE, writing + maps * SIDE * SIDE
    values = rows_of(value + nodes * DV, n * DV, n >= 0, iv, 1, DV, OPERAND)
    result = tl.zeros([SIDE * SIDE, BLOCK], ACC)
    for d in range(0, DK, KEYS):
        # the three parts meet the same numbers, which are near by then, but with other threads
        ik = d + tl.arange(0, KEYS)
        queries = rows_of(query + nodes * DK, n * DK, n >= 0, ik, 1, DK, OPERAND)
        result = _read(
            queries, reading, states, at, kept, bx, by, Y, DK, DV, ik, iv, result,
            SIDE, READ, KEEP, OPERAND, VALUES, SPLIT,
        )  # fmt: skip
        tl.debug_barrier()
        _pass_on(
            through + maps * 2 * SIDE, states, bx, by, Y, DK, DV, d, channel,
            SIDE, KEYS, BLOCK, CELLS, BACK, ACC, STATES,
        )  # fmt: skip
        tl.debug_barrier()
        keys = columns_of(key + nodes * DK, n * DK, n >= 0, ik, 1, DK, ACC)
        _write(
            keys, values, writing, states, bx, by, Y, DK, DV, ik, iv, SIDE, OPERAND, STATES, SPLIT
        )  # fmt: skip
    if READ:
        places = carried + ((way * NX + bx) * NY + by) * SIDE * SIDE * DV + n[:, None] * DV + iv[None, :]
        tl.store(places, result, mask=(n >= 0)[:, None] & (iv < DV)[None, :])


@triton.jit(do_not_specialize=["NX", "NY", "low", "count"])
def block_rows(
    vector, other, weight, entering, d_vector, d_weight, NX, NY, DK, DV, low, count,
    WAYS: tl.constexpr, SIDE: tl.constexpr, BLOCK: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Gradients of the query and of M, or of the key and of S, in one block of a strip and one orientation.

    Those of the query or key are stored for each orientation by itself.
    """
    pid, o = tl.program_id(0).to(tl.int64), tl.program_id(1)
    b, i, j = pid // (count * NY), pid // NY % count, pid % NY
    bx, by = _place(i, j, low, o, NX, NY)
    way = b * WAYS + o
    entering += ((way * count + i) * NY + j) * 2 * SIDE * DK * DV
    nodes, own = ((b * NX + bx) * NY + by) * SIDE * SIDE, ((way * NX + bx) * NY + by) * SIDE * SIDE
    vector += nodes * DK
    other += nodes * DV
    d_vector += own * DK
    weight += own * 2 * SIDE
    n, border = tl.arange(0, SIDE * SIDE), tl.arange(0, 2 * SIDE)[:, None]
    of_weights = tl.zeros([2 * SIDE, SIDE * SIDE], ACC)
    for d in range(0, DK, BLOCK):
        ik = d + tl.arange(0, BLOCK)
        vectors = rows_of(vector, n * DK, n >= 0, ik, 1, DK, ACC)
        result = tl.zeros([SIDE * SIDE, BLOCK], ACC)
        for a in range(2 * SIDE):
            read = tl.zeros([SIDE * SIDE, BLOCK], ACC)
            for e in range(0, DV, BLOCK):
                iv = e + tl.arange(0, BLOCK)
                others = rows_of(other, n * DV, n >= 0, iv, 1, DV, OPERAND)
                state = columns_of(entering + a * DK * DV, ik * DV, ik < DK, iv, 1, DV, OPERAND)
                read = mm(others, state, read, VALUES)
            of_weights += tl.where(border == a, tl.sum(read * vectors, 1)[None, :], 0.0)
            result += tl.load(weight + a * SIDE * SIDE + n)[:, None] * read
        places = d_vector + n[:, None] * DK + ik[None, :]
        tl.store(places, result, mask=(n >= 0)[:, None] & (ik < DK)[None, :])
    tl.store(d_weight + own * 2 * SIDE + border * SIDE * SIDE + n[None, :], of_weights)
