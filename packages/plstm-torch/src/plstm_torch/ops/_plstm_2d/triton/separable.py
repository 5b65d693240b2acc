"""D-mode of chirality L, quadratic: masked attention whose mask (`separable_mask.py`) never reaches memory.

    H = (G ⊙ Q Kᵀ) V        dP = dH Vᵀ,  dG = Q Kᵀ ⊙ dP,  dQ = (dP ⊙ G) K,  dK = (dP ⊙ G)ᵀ Q,  dV = (G ⊙ Q Kᵀ)ᵀ dH

Nodes of a tile are rows y of all x (targets), or columns u of all v (sources). Since a tile holds all x and all v, the
gradients of A, B and E are complete within one: they are stored as tables, from which those of the gates follow.
"""

import triton
import triton.language as tl

from plstm_torch.ops._plstm_2d.triton.nodes import product_of, rows_of
from plstm_torch.ops._plstm_2d.triton.separable_mask import at_corner, orientation, same_row
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
    query, key, value, source_r, source_d, across, down, turn, mark_l, mark_u, direct, output,
    query_batch, query_x, query_y, query_channel, key_batch, key_x, key_y, key_channel,
    value_batch, value_x, value_y, value_channel, X, Y, DK, DV, tiles,
    WAYS: tl.constexpr, YB: tl.constexpr, XP: tl.constexpr, UB: tl.constexpr, YP: tl.constexpr, BLOCK: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """One program has YB rows of targets and a block of channels, and meets all columns of sources, UB at a time."""
    b, y0 = tl.program_id(0).to(tl.int64) // tiles, (tl.program_id(0) % tiles) * YB
    query += b * query_batch
    key += b * key_batch
    value += b * value_batch
    direct += b * X * Y
    x, y, real = _targets(y0, X, Y, YB, XP)
    iv = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    result = tl.zeros([YB * XP, BLOCK], ACC)
    for u0 in range(0, X, UB):
        gating, staying = tl.zeros([YB, XP, UB, YP], ACC), tl.zeros([YB, UB, YP], ACC)
        for o in tl.static_range(WAYS):
            at = (b * WAYS + o) * X * Y
            reading, turning, stays = orientation(
                source_r + at, source_d + at, across + at, down + at, turn + at, mark_l + at, mark_u + at,
                y0, u0, X, Y, o, YB, XP, UB, YP,
            )  # fmt: skip
            gating += tl.expand_dims(reading, 3) * tl.expand_dims(turning, 1)
            staying += stays
        staying += tl.where(same_row(y0, YB, YP), at_corner(direct, y0, u0, X, Y, YB, UB), 0.0)
        column = tl.arange(0, XP)[None, :, None, None] == (u0 + tl.arange(0, UB))[None, None, :, None]
        gating += tl.where(column, tl.expand_dims(staying, 1), 0.0)
        u, v, there = _sources(u0, X, Y, UB, YP)
        scores = product_of(
            query, x * query_x + y * query_y, real, query_channel, key, u * key_x + v * key_y, there, key_channel, DK,
            YB * XP, UB * YP, BLOCK, ACC, OPERAND, VALUES,
        )  # fmt: skip
        weights = scores * tl.reshape(gating, [YB * XP, UB * YP])
        values = rows_of(value, u * value_x + v * value_y, there, iv, value_channel, DV, OPERAND)
        result = mm_wide(weights, values, result, OPERAND, VALUES, SPLIT)
    places = output + b * X * Y * DV + (x * Y + y)[:, None] * DV + iv[None, :]
    tl.store(places, result.to(output.dtype.element_ty), mask=real[:, None] & (iv < DV)[None, :])


@triton.jit(do_not_specialize=["X", "Y", "tiles"])
def separable_targets(
    query, key, value, grad, source_r, source_d, across, down, turn, mark_l, mark_u, direct,
    d_query, d_reading, d_turning, d_staying,
    query_batch, query_x, query_y, query_channel, key_batch, key_x, key_y, key_channel,
    value_batch, value_x, value_y, value_channel, grad_batch, grad_x, grad_y, grad_channel, X, Y, DK, DV, tiles,
    WAYS: tl.constexpr, YB: tl.constexpr, XP: tl.constexpr, UB: tl.constexpr, YP: tl.constexpr, BLOCK: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Gradient of the query, and the tables dA [B,O,Y,X,X], dB [B,O,X,Y,Y], dE [B,X,Y,Y] by (row, column, source)."""
    b, y0 = tl.program_id(0).to(tl.int64) // tiles, (tl.program_id(0) % tiles) * YB
    query += b * query_batch
    key += b * key_batch
    value += b * value_batch
    grad += b * grad_batch
    direct += b * X * Y
    x, y, real = _targets(y0, X, Y, YB, XP)
    first = tl.program_id(1) == 0  # the tables are the same for every block of channels
    ik = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    result = tl.zeros([YB * XP, BLOCK], ACC)
    yr, xr, vr = (
        (y0 + tl.arange(0, YB))[:, None, None],
        tl.arange(0, XP)[None, :, None],
        tl.arange(0, YP)[None, None, :],
    )
    for u0 in range(0, X, UB):
        u, v, there = _sources(u0, X, Y, UB, YP)
        scores = product_of(
            query, x * query_x + y * query_y, real, query_channel, key, u * key_x + v * key_y, there, key_channel, DK,
            YB * XP, UB * YP, BLOCK, ACC, OPERAND, VALUES,
        )  # fmt: skip
        d_weights = product_of(
            grad, x * grad_x + y * grad_y, real, grad_channel, value, u * value_x + v * value_y, there, value_channel,
            DV, YB * XP, UB * YP, BLOCK, ACC, OPERAND, VALUES,
        )  # fmt: skip
        d_gating = tl.reshape(scores * d_weights, [YB, XP, UB, YP])
        gating, staying = tl.zeros([YB, XP, UB, YP], ACC), tl.zeros([YB, UB, YP], ACC)
        uc, ur = (u0 + tl.arange(0, UB))[None, :, None], (u0 + tl.arange(0, UB))[None, None, :]
        row_mask = (uc < X) & (yr < Y) & (vr < Y)
        for o in tl.static_range(WAYS):
            at = (b * WAYS + o) * X * Y
            reading, turning, stays = orientation(
                source_r + at, source_d + at, across + at, down + at, turn + at, mark_l + at, mark_u + at,
                y0, u0, X, Y, o, YB, XP, UB, YP,
            )  # fmt: skip
            gating += tl.expand_dims(reading, 3) * tl.expand_dims(turning, 1)
            staying += stays
            if first:
                # dB = sum over x of dG A, dA = sum over v of dG B
                of_turning = tl.sum(d_gating * tl.expand_dims(reading, 3), 1)
                tl.store(d_turning + at * Y + (uc * Y + yr) * Y + vr, of_turning, mask=row_mask)
                of_reading = tl.sum(d_gating * tl.expand_dims(turning, 1), 3)
                mask = (yr < Y) & (xr < X) & (ur < X)
                tl.store(d_reading + at * X + (yr * X + xr) * X + ur, of_reading, mask=mask)
        staying += tl.where(same_row(y0, YB, YP), at_corner(direct, y0, u0, X, Y, YB, UB), 0.0)
        column = tl.arange(0, XP)[None, :, None, None] == (u0 + tl.arange(0, UB))[None, None, :, None]
        if first:
            of_staying = tl.sum(tl.where(column, d_gating, 0.0), 1)
            tl.store(d_staying + b * X * Y * Y + (uc * Y + yr) * Y + vr, of_staying, mask=row_mask)
        gating += tl.where(column, tl.expand_dims(staying, 1), 0.0)
        d_scores = (d_weights * tl.reshape(gating, [YB * XP, UB * YP])).to(OPERAND)
        keys = rows_of(key, u * key_x + v * key_y, there, ik, key_channel, DK, OPERAND)
        result = mm(d_scores, keys, result, VALUES)
    places = d_query + b * X * Y * DK + (x * Y + y)[:, None] * DK + ik[None, :]
    tl.store(places, result.to(d_query.dtype.element_ty), mask=real[:, None] & (ik < DK)[None, :])


@triton.jit(do_not_specialize=["X", "Y", "tiles"])
def separable_sources(
    query, key, value, grad, source_r, source_d, across, down, turn, mark_l, mark_u, direct, d_key, d_value,
    query_batch, query_x, query_y, query_channel, key_batch, key_x, key_y, key_channel,
    value_batch, value_x, value_y, value_channel, grad_batch, grad_x, grad_y, grad_channel, X, Y, DK, DV, tiles,
    WAYS: tl.constexpr, YB: tl.constexpr, XP: tl.constexpr, UB: tl.constexpr, YP: tl.constexpr, BLOCK: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Gradients of key and value: one program has UB columns of sources. Tiles are [(u, v), (y, x)]."""
    b, u0 = tl.program_id(0).to(tl.int64) // tiles, (tl.program_id(0) % tiles) * UB
    query += b * query_batch
    key += b * key_batch
    value += b * value_batch
    grad += b * grad_batch
    direct += b * X * Y
    u, v, there = _sources(u0, X, Y, UB, YP)
    channels = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    of_key, of_value = tl.zeros([UB * YP, BLOCK], ACC), tl.zeros([UB * YP, BLOCK], ACC)
    for y0 in range(0, Y, YB):
        gating, staying = tl.zeros([UB, YP, YB, XP], ACC), tl.zeros([YB, UB, YP], ACC)
        for o in tl.static_range(WAYS):
            at = (b * WAYS + o) * X * Y
            reading, turning, stays = orientation(
                source_r + at, source_d + at, across + at, down + at, turn + at, mark_l + at, mark_u + at,
                y0, u0, X, Y, o, YB, XP, UB, YP,
            )  # fmt: skip
            turned, read = tl.permute(turning, (1, 2, 0)), tl.permute(reading, (2, 0, 1))
            gating += tl.expand_dims(turned, 3) * tl.expand_dims(read, 1)
            staying += stays
        staying += tl.where(same_row(y0, YB, YP), at_corner(direct, y0, u0, X, Y, YB, UB), 0.0)
        column = tl.arange(0, XP)[None, None, None, :] == (u0 + tl.arange(0, UB))[:, None, None, None]
        gating += tl.where(column, tl.expand_dims(tl.permute(staying, (1, 2, 0)), 3), 0.0)
        gates = tl.reshape(gating, [UB * YP, YB * XP])
        x, y, real = _targets(y0, X, Y, YB, XP)
        scores = product_of(
            key, u * key_x + v * key_y, there, key_channel, query, x * query_x + y * query_y, real, query_channel, DK,
            UB * YP, YB * XP, BLOCK, ACC, OPERAND, VALUES,
        )  # fmt: skip
        d_weights = product_of(
            value, u * value_x + v * value_y, there, value_channel, grad, x * grad_x + y * grad_y, real, grad_channel,
            DV, UB * YP, YB * XP, BLOCK, ACC, OPERAND, VALUES,
        )  # fmt: skip
        grads = rows_of(grad, x * grad_x + y * grad_y, real, channels, grad_channel, DV, OPERAND)
        of_value = mm((scores * gates).to(OPERAND), grads, of_value, VALUES)
        queries = rows_of(query, x * query_x + y * query_y, real, channels, query_channel, DK, OPERAND)
        of_key = mm((d_weights * gates).to(OPERAND), queries, of_key, VALUES)
    node = (u * Y + v)[:, None]
    places = d_key + b * X * Y * DK + node * DK + channels[None, :]
    tl.store(places, of_key.to(d_key.dtype.element_ty), mask=there[:, None] & (channels < DK)[None, :])
    places = d_value + b * X * Y * DV + node * DV + channels[None, :]
    tl.store(places, of_value.to(d_value.dtype.element_ty), mask=there[:, None] & (channels < DV)[None, :])
