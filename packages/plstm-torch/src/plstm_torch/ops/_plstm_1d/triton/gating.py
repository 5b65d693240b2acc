"""The gating of a chunk as a tile, and sums over it by level (`decay.py`), in registers alone.

Tiles have their columns in groups of eight, [C, C / 8, 8]. The levels below three couple a step with its own group
only: they are worked out on [C, 8] and put into the tile at once. LATER says that rows are the later steps, the columns
the earlier ones; otherwise it is the other way round.
"""

import triton
import triton.language as tl

from plstm_torch.ops._triton.decay import of_level, prefix, suffix


@triton.jit
def _rows(C: tl.constexpr):
    return tl.arange(0, C)[:, None, None]


@triton.jit
def _groups(C: tl.constexpr):
    return tl.arange(0, C // 8)[None, :, None]


@triton.jit
def _couples(row, column, LEVEL: tl.constexpr, LATER: tl.constexpr):
    return of_level(row, column, LEVEL) if LATER else of_level(column, row, LEVEL)


@triton.jit
def _row_level(levels, k, LEVEL: tl.constexpr, LEVELS: tl.constexpr, C: tl.constexpr, LATER: tl.constexpr):
    """What a level multiplies the gate of a row by."""
    return prefix(levels, k, LEVEL, LEVELS, C) if LATER else suffix(levels, k, LEVEL, LEVELS, C)


@triton.jit
def grouped(tile, C: tl.constexpr):
    """A tile [C, C] with its columns in groups."""
    return tl.reshape(tile, [C, C // 8, 8])


@triton.jit
def reached(tile, C: tl.constexpr, LATER: tl.constexpr):
    """A tile in groups, zero where the row's step does not meet the column's, whatever stood there; as [C, C]."""
    row, column = _rows(C), _groups(C) * 8 + tl.arange(0, 8)[None, None, :]
    return tl.reshape(tl.where(row >= column if LATER else row <= column, tile, 0.0), [C, C])


@triton.jit
def factors(
    levels, of_rows, of_columns, direct, valid, C: tl.constexpr, LEVELS: tl.constexpr, LATER: tl.constexpr,
):  # fmt: skip
    """Two tiles in groups, whose product is G: of the gate of rows and of that of columns, D and one on the diagonal.

    Gates are pointers to the first step of the chunk, LATER those of mark and source, otherwise of source and mark.
    """
    k, u = tl.arange(0, C), tl.arange(0, 8)[None, :]
    gate = tl.load(of_rows + k, mask=k < valid, other=0.0)
    own = tl.load(direct + k, mask=k < valid, other=0.0)
    near = (k // 8 * 8)[:, None] + u
    near_gate = tl.load(of_columns + near, mask=near < valid, other=0.0)
    same = (k % 8)[:, None] == u
    rows, columns = tl.where(same, own[:, None], 0.0), tl.where(same, 1.0, 0.0)
    for level in tl.static_range(3):
        here = _couples((k % 8)[:, None], u, level, LATER)
        rows = tl.where(here, (gate * _row_level(levels, k, level, LEVELS, C, LATER))[:, None], rows)
        columns = tl.where(here, near_gate * _row_level(levels, near, level, LEVELS, C, not LATER), columns)
    row, group = _rows(C) // 8, _groups(C)
    rows, columns = tl.where(row == group, rows[:, None, :], 0.0), tl.where(row == group, columns[:, None, :], 0.0)
    gate_of_columns = tl.load(of_columns + k, mask=k < valid, other=0.0)
    for level in tl.static_range(3, LEVELS):
        here = _couples(row, group, level - 3, LATER)
        rows = tl.where(here, (gate * _row_level(levels, k, level, LEVELS, C, LATER))[:, None, None], rows)
        column = gate_of_columns * _row_level(levels, k, level, LEVELS, C, not LATER)
        columns = tl.where(here, tl.reshape(column, [1, C // 8, 8]), columns)
    return rows, columns


@triton.jit
def level_sums(tile, C: tl.constexpr, LEVELS: tl.constexpr, LATER: tl.constexpr):
    """The sums of the rows of a tile in groups over each level, in the columns of [C, 8], and its diagonal, [C]."""
    k, u = tl.arange(0, C), tl.arange(0, 8)[None, :]
    row, group = _rows(C) // 8, _groups(C)
    near = tl.sum(tl.where(row == group, tile, 0.0), 1)
    sums = tl.zeros([C, 8], tile.dtype)
    for level in tl.static_range(3):
        here = _couples((k % 8)[:, None], u, level, LATER)
        sums = tl.where(u == level, tl.sum(tl.where(here, near, 0.0), 1)[:, None], sums)
    for level in tl.static_range(3, LEVELS):
        here = _couples(row, group, level - 3, LATER)
        sums = tl.where(u == level, tl.sum(tl.sum(tl.where(here, tile, 0.0), 1), 1)[:, None], sums)
    return sums, tl.sum(tl.where((k % 8)[:, None] == u, near, 0.0), 1)


@triton.jit
def store_sums(places, sums, of_state, C: tl.constexpr, LEVELS: tl.constexpr):
    """Stores `level_sums`, with that of the state behind them."""
    k, u = tl.arange(0, C)[:, None], tl.arange(0, 8)[None, :]
    tl.store(places + k * 8 + u, tl.where(u == LEVELS, of_state[:, None], sums))
