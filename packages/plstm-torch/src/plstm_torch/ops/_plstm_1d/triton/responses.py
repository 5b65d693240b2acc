"""What the state-tracking matrices of a chunk do to everything before each step: a scan of small matrices, and back.

The columns of Z respond to the sources of the C steps, W = JK JV for each, and behind them to the entering state:

    Z_0 = [0 | I]          Z_{t+1} = T_t Z_t, with S_t in the columns of source t
    M_t Z_t = [gating | reach]_t, with D_t in the columns of source t          Z_C = [arrive | total]

Backwards, with the columns of source t and of later ones left out of d(M_t Z_t):

    lam_C = dZ_C          lam_t = T_tᵀ lam_{t+1} + M_tᵀ d(M_t Z_t)
    dT_t = lam_{t+1} Z_tᵀ          dM_t = d(M_t Z_t) Z_tᵀ          dS_t, dD_t: the columns of source t

Columns know nothing of each other, so a program takes a block of them and holds JT numbers for each; a product is a sum
over JT, in the dtype of the gates. Steps beyond the sequence have zero gates and pass Z on. What a column does not
depend on is left out by selection.
"""

import triton
import triton.language as tl

from plstm_torch.ops._plstm_1d.triton.places import chunk


@triton.jit
def _place(bounds, owners, T, N, low, C: tl.constexpr):
    """Number of the chunk among those of the call, first of its steps in the batch, and how many it holds."""
    i = tl.program_id(0).to(tl.int64)
    first, valid = chunk(bounds, owners, low + i % N, C)
    return i, (i // N) * T + first, valid


@triton.jit
def _matrix(start, rows, columns, row_stride, column_stride, rows_inside, columns_inside):
    """A small matrix [rows, columns], zero outside."""
    places = start + rows[:, None] * row_stride + columns[None, :] * column_stride
    return tl.load(places, mask=(rows < rows_inside)[:, None] & (columns < columns_inside)[None, :], other=0.0)


@triton.jit(do_not_specialize=["T", "N", "low"])
def respond(
    source, transition, mark, direct, bounds, owners, gating, reach, arrive, total, states, T, N, low, O, W,
    C: tl.constexpr, JT: tl.constexpr, JTP: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    KEEP: tl.constexpr,
):  # fmt: skip
    """A block of columns of the chunks [low, low + N): gating [n,C,O,C*W], reach [n,C,O,JT], arrive [n,JT,C*W], total
    [n,JT,JT], and if KEEP Z before every step [n,C,JT,C*W+JT]; n = B * N, O = JO * JQ.
    """  # noqa: D205
    i, line, valid = _place(bounds, owners, T, N, low, C)
    a, o, c = tl.arange(0, JTP), tl.arange(0, ROWS), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    sources = C * W
    width = sources + JT
    # the last columns start as the identity; JT of JTP rows exist
    state = tl.where(a[:, None] == (c - sources)[None, :], 1.0, tl.zeros([JTP, BLOCK], states.dtype.element_ty))
    for t in range(0, C):
        at, step = i * C + t, line + t
        size, outputs = tl.where(t < valid, JT, 0), tl.where(t < valid, O, 0)
        w = c - t * W
        own, later = (w >= 0) & (w < W) & (c < sources), (w >= W) & (c < sources)
        if KEEP:
            places = states + (at * JT + a)[:, None] * width + c[None, :]
            tl.store(places, state, mask=(a < JT)[:, None] & (c < width)[None, :])
        for first in range(0, O, ROWS):
            row = first + o
            marks = _matrix(mark + step * O * JT, row, a, JT, 1, outputs, size)
            places = direct + step * O * W + row[:, None] * W + w[None, :]
            directs = tl.load(places, mask=(row < outputs)[:, None] & own[None, :], other=0.0)
            read = tl.sum(marks[:, :, None] * state[None, :, :], 1)
            read = tl.where(own[None, :], directs, tl.where(later[None, :], 0.0, read))
            places = gating + (at * O + row)[:, None] * sources + c[None, :]
            tl.store(places, read, mask=(row < O)[:, None] & (c < sources)[None, :])
            places = reach + (at * O + row)[:, None] * JT + (c - sources)[None, :]
            tl.store(places, read, mask=(row < O)[:, None] & ((c >= sources) & (c < width))[None, :])
        move = _matrix(transition + step * JT * JT, a, a, JT, 1, size, size)
        places = source + step * JT * W + a[:, None] * W + w[None, :]
        entry = tl.load(places, mask=(a < size)[:, None] & own[None, :], other=0.0)
        moved = tl.sum(move[:, :, None] * state[None, :, :], 1)
        moved = tl.where(own[None, :], entry, tl.where(later[None, :], 0.0, moved))
        state = tl.where(t < valid, moved, state)
    places = arrive + (i * JT + a)[:, None] * sources + c[None, :]
    tl.store(places, state, mask=(a < JT)[:, None] & (c < sources)[None, :])
    places = total + (i * JT + a)[:, None] * JT + (c - sources)[None, :]
    tl.store(places, state, mask=(a < JT)[:, None] & ((c >= sources) & (c < width))[None, :])


@triton.jit(do_not_specialize=["T", "N", "low", "part"])
def respond_gradients(
    transition, mark, bounds, owners, states, d_gating, d_reach, d_arrive, d_total,
    d_source, d_transition, d_mark, d_direct, T, N, low, part, O, W,
    C: tl.constexpr, JT: tl.constexpr, JTP: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of the gates, shaped as the gates; those of transition and mark in parts, one for each block of columns
    and `part` steps apart.
    """  # noqa: D205
    i, line, valid = _place(bounds, owners, T, N, low, C)
    a, o, c = tl.arange(0, JTP), tl.arange(0, ROWS), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    sources = C * W
    width = sources + JT
    inside = (a < JT)[:, None]
    places = d_arrive + (i * JT + a)[:, None] * sources + c[None, :]
    lam = tl.load(places, mask=inside & (c < sources)[None, :], other=0.0)
    places = d_total + (i * JT + a)[:, None] * JT + (c - sources)[None, :]
    lam += tl.load(places, mask=inside & ((c >= sources) & (c < width))[None, :], other=0.0)
    beyond = tl.program_id(1).to(tl.int64) * part
    for back in range(0, C):
        t = C - 1 - back
        at, step = i * C + t, line + t
        size, outputs = tl.where(t < valid, JT, 0), tl.where(t < valid, O, 0)
        w = c - t * W
        own, before = (w >= 0) & (w < W) & (c < sources), (w < 0) | (c >= sources)
        state = tl.load(
            states + (at * JT + a)[:, None] * width + c[None, :], mask=inside & (c < width)[None, :], other=0.0
        )
        square = (a < size)[:, None] & (a < size)[None, :]
        d_move = tl.sum(lam[:, None, :] * state[None, :, :], 2)
        tl.store(d_transition + (beyond + step) * JT * JT + a[:, None] * JT + a[None, :], d_move, mask=square)
        tl.store(
            d_source + step * JT * W + a[:, None] * W + w[None, :], lam, mask=(a < size)[:, None] & own[None, :]
        )
        move = _matrix(transition + step * JT * JT, a, a, JT, 1, size, size)
        earlier = tl.sum(move[:, :, None] * lam[:, None, :], 0)
        for first in range(0, O, ROWS):
            row = first + o
            places = d_gating + (at * O + row)[:, None] * sources + c[None, :]
            d_read = tl.load(places, mask=(row < outputs)[:, None] & (c < sources)[None, :], other=0.0)
            places = d_direct + step * O * W + row[:, None] * W + w[None, :]
            tl.store(places, d_read, mask=(row < outputs)[:, None] & own[None, :])
            places = d_reach + (at * O + row)[:, None] * JT + (c - sources)[None, :]
            d_read += tl.load(
                places, mask=(row < outputs)[:, None] & ((c >= sources) & (c < width))[None, :], other=0.0
            )
            d_read = tl.where(before[None, :], d_read, 0.0)
            d_marks = tl.sum(d_read[:, None, :] * state[None, :, :], 2)
            places = d_mark + (beyond + step) * O * JT + row[:, None] * JT + a[None, :]
            tl.store(places, d_marks, mask=(row < outputs)[:, None] & (a < size)[None, :])
            marks = _matrix(mark + step * O * JT, row, a, JT, 1, outputs, size)
            earlier += tl.sum(marks[:, :, None] * d_read[:, None, :], 0)
        lam = tl.where(t < valid, tl.where(before[None, :], earlier, 0.0), lam)
