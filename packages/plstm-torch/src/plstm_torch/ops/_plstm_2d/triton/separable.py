"""D-mode of chirality L, quadratic: masked attention whose mask (`separable_mask.py`) never reaches memory.

    H = (G ⊙ Q Kᵀ) V        dP = dH Vᵀ,  dG = Q Kᵀ ⊙ dP,  dQ = (dP ⊙ G) K,  dK = (dP ⊙ G)ᵀ Q,  dV = (G ⊙ Q Kᵀ)ᵀ dH
    G = L R                 dL = dG Rᵀ,  dRᵀ = dGᵀ L

Nodes of a tile are rows y of all x (targets), or columns u of all v (sources). Since a tile holds all x and all v, the
gradients of A, B and E are complete within one: they are stored as tables like those. With HELD all channels of the
nodes that stay are in registers.
"""

import triton
import triton.language as tl

from plstm_torch.ops._plstm_2d.triton.nodes import columns_of, product_of, rows_of
from plstm_torch.ops._plstm_2d.triton.separable_mask import left_of, right_of, right_places, slots_of
from plstm_torch.ops._triton.dots import mm, mm_wide


@triton.jit
def _targets(y0, X, Y, YB: tl.constexpr, XP: tl.constexpr):
    """Columns and rows of the targets of a tile, and which of them exist."""
    p = tl.arange(0, YB * XP)
    x, y = p % XP, y0 + p // XP
    return x, y, (x < X) & (y < Y)


@triton.jit
def _sources(u0, X, Y, UB: tl.constexpr, YP: tl.constexpr):
    """The same of the sources of a tile."""
    c = tl.arange(0, UB * YP)
    u, v = u0 + c // YP, c % YP
    return u, v, (u < X) & (v < Y)


@triton.jit(do_not_specialize=["X", "Y", "tiles"])
def separable_output(
    query, key, value, reading, turning, output,
    query_batch, query_x, query_y, query_channel, key_batch, key_x, key_y, key_channel,
    value_batch, value_x, value_y, value_channel, X, Y, DK, DV, tiles,
    WAYS: tl.constexpr, YB: tl.constexpr, XP: tl.constexpr, UB: tl.constexpr, YP: tl.constexpr, BLOCK: tl.constexpr,
    HELD: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr, EXACT: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """One program has YB rows of targets and a block of channels, and meets all columns of sources, UB at a time."""
    b, y0 = tl.program_id(0).to(tl.int64) // tiles, (tl.program_id(0) % tiles) * YB
    query += b * query_batch
    key += b * key_batch
    value += b * value_batch
    reading += b * Y * X * (XP * WAYS)
    turning += b * X * Y * ((WAYS + 1) * YP)
    x, y, real = _targets(y0, X, Y, YB, XP)
    xr, yr, ones = x[:, None], y[:, None], tl.arange(0, BLOCK)
    iv = tl.program_id(1) * BLOCK + ones
    result = tl.zeros([YB * XP, BLOCK], ACC)
    if HELD:
        queries = rows_of(query, x * query_x + y * query_y, real, ones, query_channel, DK, OPERAND)
    for u0 in range(0, X, UB):
        u, v, there = _sources(u0, X, Y, UB, YP)
        row, column, way = slots_of(y0, u0, WAYS, YB * UB, UB)
        left = left_of(reading, xr, yr, real[:, None], row[None, :], column[None, :], way[None, :], X, WAYS, XP)
        right = right_of(
            turning, u[None, :], v[None, :], row[:, None], column[:, None], way[:, None], X, Y, WAYS, YP
        )  # fmt: skip
        gating = mm(left, right, tl.zeros([YB * XP, UB * YP], ACC), EXACT)
        if HELD:
            keys = columns_of(key, u * key_x + v * key_y, there, ones, key_channel, DK, OPERAND)
            scores = mm(queries, keys, tl.zeros([YB * XP, UB * YP], ACC), VALUES)
        else:
            scores = product_of(
                query, x * query_x + y * query_y, real, query_channel,
                key, u * key_x + v * key_y, there, key_channel, DK,
                YB * XP, UB * YP, BLOCK, ACC, OPERAND, VALUES,
            )  # fmt: skip
        values = rows_of(value, u * value_x + v * value_y, there, iv, value_channel, DV, OPERAND)
        result = mm_wide(scores * gating, values, result, OPERAND, VALUES, SPLIT)
    places = output + b * X * Y * DV + (x * Y + y)[:, None] * DV + iv[None, :]
    tl.store(places, result.to(output.dtype.element_ty), mask=real[:, None] & (iv < DV)[None, :])


@triton.jit(do_not_specialize=["X", "Y", "tiles"])
def separable_targets(
    query, key, value, grad, reading, turning, d_query, d_reading,
    query_batch, query_x, query_y, query_channel, key_batch, key_x, key_y, key_channel,
    value_batch, value_x, value_y, value_channel, grad_batch, grad_x, grad_y, grad_channel, X, Y, DK, DV, tiles,
    WAYS: tl.constexpr, YB: tl.constexpr, XP: tl.constexpr, UB: tl.constexpr, YP: tl.constexpr, BLOCK: tl.constexpr,
    HELD: tl.constexpr, ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Gradients of the query and of the table A; one program has YB rows of targets."""
    b, y0 = tl.program_id(0).to(tl.int64) // tiles, (tl.program_id(0) % tiles) * YB
    query += b * query_batch
    key += b * key_batch
    value += b * value_batch
    grad += b * grad_batch
    reading += b * Y * X * (XP * WAYS)
    d_reading += b * Y * X * (XP * WAYS)
    turning += b * X * Y * ((WAYS + 1) * YP)
    x, y, real = _targets(y0, X, Y, YB, XP)
    xr, yr, there_r, ones = x[:, None], y[:, None], real[:, None], tl.arange(0, BLOCK)
    ways = tl.where(tl.program_id(1) == 0, WAYS, 0)  # the table is the same for every block of channels
    ik = tl.program_id(1) * BLOCK + ones
    result = tl.zeros([YB * XP, BLOCK], ACC)
    if HELD:
        queries = rows_of(query, x * query_x + y * query_y, real, ones, query_channel, DK, OPERAND)
        grads = rows_of(grad, x * grad_x + y * grad_y, real, ones, grad_channel, DV, OPERAND)
    for u0 in range(0, X, UB):
        u, v, there = _sources(u0, X, Y, UB, YP)
        row, column, way = slots_of(y0, u0, WAYS, YB * UB, UB)
        left = left_of(reading, xr, yr, there_r, row[None, :], column[None, :], way[None, :], X, WAYS, XP)
        right = right_of(
            turning, u[None, :], v[None, :], row[:, None], column[:, None], way[:, None], X, Y, WAYS, YP
        )  # fmt: skip
        gating = mm(left, right, tl.zeros([YB * XP, UB * YP], ACC), EXACT)
        if HELD:
            keys = columns_of(key, u * key_x + v * key_y, there, ones, key_channel, DK, OPERAND)
            scores = mm(queries, keys, tl.zeros([YB * XP, UB * YP], ACC), VALUES)
            values = columns_of(value, u * value_x + v * value_y, there, ones, value_channel, DV, OPERAND)
            d_weights = mm(grads, values, tl.zeros([YB * XP, UB * YP], ACC), VALUES)
        else:
            scores = product_of(
                query, x * query_x + y * query_y, real, query_channel,
                key, u * key_x + v * key_y, there, key_channel, DK,
                YB * XP, UB * YP, BLOCK, ACC, OPERAND, VALUES,
            )  # fmt: skip
            d_weights = product_of(
                grad, x * grad_x + y * grad_y, real, grad_channel,
                value, u * value_x + v * value_y, there, value_channel, DV,
                YB * XP, UB * YP, BLOCK, ACC, OPERAND, VALUES,
            )  # fmt: skip
        keys_by_node = rows_of(key, u * key_x + v * key_y, there, ik, key_channel, DK, OPERAND)
        result = mm((d_weights * gating).to(OPERAND), keys_by_node, result, VALUES)
        turned = right_of(
            turning, u[:, None], v[:, None], row[None, :], column[None, :], way[None, :], X, Y, WAYS, YP
        )  # fmt: skip
        of_left = mm(scores * d_weights, turned, tl.zeros_like(left), EXACT)
        stored = there_r & (yr == row[None, :]) & (way < ways)[None, :] & (column < X)[None, :]
        tl.store(d_reading + ((yr * X + xr) * XP + column[None, :]) * WAYS + way[None, :], of_left, mask=stored)
    places = d_query + b * X * Y * DK + (x * Y + y)[:, None] * DK + ik[None, :]
    tl.store(places, result.to(d_query.dtype.element_ty), mask=real[:, None] & (ik < DK)[None, :])


@triton.jit(do_not_specialize=["X", "Y", "tiles"])
def separable_sources(
    query, key, value, grad, reading, turning, d_key, d_value, d_turning,
    query_batch, query_x, query_y, query_channel, key_batch, key_x, key_y, key_channel,
    value_batch, value_x, value_y, value_channel, grad_batch, grad_x, grad_y, grad_channel, X, Y, DK, DV, tiles,
    WAYS: tl.constexpr, YB: tl.constexpr, XP: tl.constexpr, UB: tl.constexpr, YP: tl.constexpr, BLOCK: tl.constexpr,
    HELD: tl.constexpr, ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Gradients of key, value and the table B: one program has UB columns of sources. Tiles are [(u, v), (y, x)]."""
    b, u0 = tl.program_id(0).to(tl.int64) // tiles, (tl.program_id(0) % tiles) * UB
    query += b * query_batch
    key += b * key_batch
    value += b * value_batch
    grad += b * grad_batch
    reading += b * Y * X * (XP * WAYS)
    turning += b * X * Y * ((WAYS + 1) * YP)
    d_turning += b * X * Y * ((WAYS + 1) * YP)
    u, v, there = _sources(u0, X, Y, UB, YP)
    ur, vr, ones = u[:, None], v[:, None], tl.arange(0, BLOCK)
    ways = tl.where(tl.program_id(1) == 0, WAYS + 1, 0)
    channels = tl.program_id(1) * BLOCK + ones
    of_key, of_value = tl.zeros([UB * YP, BLOCK], ACC), tl.zeros([UB * YP, BLOCK], ACC)
    if HELD:
        keys = rows_of(key, u * key_x + v * key_y, there, ones, key_channel, DK, OPERAND)
        values = rows_of(value, u * value_x + v * value_y, there, ones, value_channel, DV, OPERAND)
    for y0 in range(0, Y, YB):
        x, y, real = _targets(y0, X, Y, YB, XP)
        row, column, way = slots_of(y0, u0, WAYS, YB * UB, UB)
        right = right_of(turning, ur, vr, row[None, :], column[None, :], way[None, :], X, Y, WAYS, YP)
        left = left_of(
            reading, x[None, :], y[None, :], real[None, :], row[:, None], column[:, None], way[:, None], X, WAYS, XP
        )  # fmt: skip
        gating = mm(right, left, tl.zeros([UB * YP, YB * XP], ACC), EXACT)
        if HELD:
            queries = columns_of(query, x * query_x + y * query_y, real, ones, query_channel, DK, OPERAND)
            scores = mm(keys, queries, tl.zeros([UB * YP, YB * XP], ACC), VALUES)
            grads = columns_of(grad, x * grad_x + y * grad_y, real, ones, grad_channel, DV, OPERAND)
            d_weights = mm(values, grads, tl.zeros([UB * YP, YB * XP], ACC), VALUES)
        else:
            scores = product_of(
                key, u * key_x + v * key_y, there, key_channel,
                query, x * query_x + y * query_y, real, query_channel, DK,
                UB * YP, YB * XP, BLOCK, ACC, OPERAND, VALUES,
            )  # fmt: skip
            d_weights = product_of(
                value, u * value_x + v * value_y, there, value_channel,
                grad, x * grad_x + y * grad_y, real, grad_channel, DV,
                UB * YP, YB * XP, BLOCK, ACC, OPERAND, VALUES,
            )  # fmt: skip
        grads_by_node = rows_of(grad, x * grad_x + y * grad_y, real, channels, grad_channel, DV, OPERAND)
        of_value = mm((scores * gating).to(OPERAND), grads_by_node, of_value, VALUES)
        queries_by_node = rows_of(query, x * query_x + y * query_y, real, channels, query_channel, DK, OPERAND)
        of_key = mm((d_weights * gating).to(OPERAND), queries_by_node, of_key, VALUES)
        read = left_of(
            reading, x[:, None], y[:, None], real[:, None], row[None, :], column[None, :], way[None, :], X, WAYS, XP
        )  # fmt: skip
        of_right = mm(scores * d_weights, read, tl.zeros_like(right), EXACT)
        stored = (ur == column[None, :]) & (ur < X) & (row < y0 + YB)[None, :] & (row < Y)[None, :]
        stored &= (way < ways)[None, :]
        tl.store(d_turning + right_places(ur, vr, row[None, :], way[None, :], Y, WAYS, YP), of_right, mask=stored)
    node = (u * Y + v)[:, None]
    places = d_key + b * X * Y * DK + node * DK + channels[None, :]
    tl.store(places, of_key.to(d_key.dtype.element_ty), mask=there[:, None] & (channels < DK)[None, :])
    places = d_value + b * X * Y * DV + node * DV + channels[None, :]
    tl.store(places, of_value.to(d_value.dtype.element_ty), mask=there[:, None] & (channels < DV)[None, :])
