"""What the state-tracking matrices of a chunk do to everything before each step: a scan of small matrices, and back.

The columns of Z respond to the sources of the C steps, KV = JK * JV for each, and behind them to the entering state:

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
def _load(start, rows, stride, columns, inside_rows, inside_columns):
    """[rows, columns] of memory where rows are `stride` apart, zero outside."""
    places = start + (rows * stride)[:, None] + columns[None, :]
    return tl.load(places, mask=inside_rows[:, None] & inside_columns[None, :], other=0.0)


@triton.jit
def _store(start, rows, stride, columns, inside_rows, inside_columns, values):
    places = start + (rows * stride)[:, None] + columns[None, :]
    tl.store(places, values, mask=inside_rows[:, None] & inside_columns[None, :])


@triton.jit(do_not_specialize=["T", "N", "low"])
def respond(
    source, transition, mark, direct, bounds, owners, gating, reach, arrive, total, states, T, N, low, OQ, KV,
    C: tl.constexpr, JT: tl.constexpr, JTP: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    KEEP: tl.constexpr,
):  # fmt: skip
    """A block of columns of the chunks [low, low + N) of every row of the batch, n = B * N of them.

    Stores gating [n,C,OQ,C*KV] and reach [n,C,OQ,JT], OQ = JO * JQ, arrive [n,JT,C*KV], total [n,JT,JT], and if KEEP Z
    before every step, [n,C,JT,C*KV+JT].
    """
    i, line, valid = _place(bounds, owners, T, N, low, C)
    a, o, c = tl.arange(0, JTP), tl.arange(0, ROWS), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    sources = C * KV
    entry, of_source, of_entry = c - sources, c < sources, (c >= sources) & (c < sources + JT)
    # the last columns start as the identity
    state = tl.where(a[:, None] == entry[None, :], 1.0, tl.zeros([JTP, BLOCK], gating.dtype.element_ty))
    for t in range(0, C):
        at, step = i * C + t, line + t
        inside, outputs = a < tl.where(t < valid, JT, 0), tl.where(t < valid, OQ, 0)
        w = c - t * KV
        own, later = (w >= 0) & (w < KV) & of_source, (w >= KV) & of_source
        if KEEP:
            width = sources + JT
            _store(states + at * JT * width, a, width, c, a < JT, c < width, state)
        for first in range(0, OQ, ROWS):
            row = first + o
            marks = _load(mark + step * OQ * JT, row, JT, a, row < outputs, inside)
            directs = _load(direct + step * OQ * KV, row, KV, w, row < outputs, own)
            read = tl.sum(marks[:, :, None] * state[None, :, :], 1)
            read = tl.where(own[None, :], directs, tl.where(later[None, :], 0.0, read))
            _store(gating + at * OQ * sources, row, sources, c, row < OQ, of_source, read)
            _store(reach + at * OQ * JT, row, JT, entry, row < OQ, of_entry, read)
        move = _load(transition + step * JT * JT, a, JT, a, inside, inside)
        written = _load(source + step * JT * KV, a, KV, w, inside, own)
        moved = tl.sum(move[:, :, None] * state[None, :, :], 1)
        moved = tl.where(own[None, :], written, tl.where(later[None, :], 0.0, moved))
        state = tl.where(t < valid, moved, state)
    _store(arrive + i * JT * sources, a, sources, c, a < JT, of_source, state)
    _store(total + i * JT * JT, a, JT, entry, a < JT, of_entry, state)


@triton.jit(do_not_specialize=["T", "N", "low", "part"])
def respond_gradients(
    transition, mark, bounds, owners, states, d_gating, d_reach, d_arrive, d_total,
    d_source, d_transition, d_mark, d_direct, T, N, low, part, OQ, KV,
    C: tl.constexpr, JT: tl.constexpr, JTP: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of the gates in their shapes, by those of what `respond` stores.

    Those of transition and mark come in parts, one for each block of columns and `part` steps apart.
    """
    i, line, valid = _place(bounds, owners, T, N, low, C)
    a, o, c = tl.arange(0, JTP), tl.arange(0, ROWS), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    sources = C * KV
    width = sources + JT
    entry, of_source, of_entry = c - sources, c < sources, (c >= sources) & (c < width)
    lam = _load(d_arrive + i * JT * sources, a, sources, c, a < JT, of_source)
    lam += _load(d_total + i * JT * JT, a, JT, entry, a < JT, of_entry)
    shift = tl.program_id(1).to(tl.int64) * part
    for back in range(0, C):
        t = C - 1 - back
        at, step = i * C + t, line + t
        inside, outputs = a < tl.where(t < valid, JT, 0), tl.where(t < valid, OQ, 0)
        w = c - t * KV
        own, before = (w >= 0) & (w < KV) & of_source, (w < 0) | (c >= sources)
        state = _load(states + at * JT * width, a, width, c, a < JT, c < width)
        d_move = tl.sum(lam[:, None, :] * state[None, :, :], 2)
        _store(d_transition + (shift + step) * JT * JT, a, JT, a, inside, inside, d_move)
        _store(d_source + step * JT * KV, a, KV, w, inside, own, lam)
        move = _load(transition + step * JT * JT, a, JT, a, inside, inside)
        earlier = tl.sum(move[:, :, None] * lam[:, None, :], 0)
        for first in range(0, OQ, ROWS):
            row = first + o
            d_read = _load(d_gating + at * OQ * sources, row, sources, c, row < outputs, of_source)
            _store(d_direct + step * OQ * KV, row, KV, w, row < outputs, own, d_read)
            d_read += _load(d_reach + at * OQ * JT, row, JT, entry, row < outputs, of_entry)
            d_read = tl.where(before[None, :], d_read, 0.0)
            d_marks = tl.sum(d_read[:, None, :] * state[None, :, :], 2)
            _store(d_mark + (shift + step) * OQ * JT, row, JT, a, row < outputs, inside, d_marks)
            marks = _load(mark + step * OQ * JT, row, JT, a, row < outputs, inside)
            earlier += tl.sum(marks[:, :, None] * d_read[:, None, :], 0)
        lam = tl.where(t < valid, tl.where(before[None, :], earlier, 0.0), lam)
