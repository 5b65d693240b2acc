"""Vectors of nodes in tiles, and decays along lines of nodes, in device code.

Places are offsets of nodes from the first one, for any strides.
"""

import triton
import triton.language as tl

from plstm_torch.ops._triton.dots import mm


@triton.jit
def rows_of(tensor, places, there, channels, stride, size, OPERAND: tl.constexpr):
    """[nodes, channels] of a tensor, as an operand."""
    mask = there[:, None] & (channels < size)[None, :]
    return tl.load(tensor + places[:, None] + channels[None, :] * stride, mask=mask, other=0.0).to(OPERAND)


@triton.jit
def columns_of(tensor, places, there, channels, stride, size, OPERAND: tl.constexpr):
    """[channels, nodes] of a tensor, as an operand."""
    mask = there[None, :] & (channels < size)[:, None]
    return tl.load(tensor + places[None, :] + channels[:, None] * stride, mask=mask, other=0.0).to(OPERAND)


@triton.jit
def product_of(
    left, left_places, left_there, left_channel, right, right_places, right_there, right_channel, size,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
    ACC: tl.constexpr, OPERAND: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """[ROWS, COLUMNS]: products of nodes with nodes over all channels."""
    product = tl.zeros([ROWS, COLUMNS], ACC)
    for d in range(0, size, BLOCK):
        channels = d + tl.arange(0, BLOCK)
        rows = rows_of(left, left_places, left_there, channels, left_channel, size, OPERAND)
        columns = columns_of(right, right_places, right_there, channels, right_channel, size, OPERAND)
        product = mm(rows, columns, product, VALUES)
    return product


@triton.jit
def between(transition, n, stride, P: tl.constexpr, BACK: tl.constexpr):
    """R as [i, j], zero unless i comes after j on the walk: the product of the transitions of the nodes between them.

    The transpose is R of the other direction: nothing is transposed.
    """
    i, j, k = tl.arange(0, P)[:, None], tl.arange(0, P)[None, :], tl.arange(0, P)
    if BACK:
        near = tl.load(transition + (k + 1) * stride, mask=k + 1 < n, other=1.0)
        return tl.where(i < j, tl.cumprod(tl.where(i + 1 < j, near[:, None], 1.0), 0, reverse=True), 0.0)
    else:
        near = tl.load(transition + (k - 1) * stride, mask=(k >= 1) & (k - 1 < n), other=1.0)
        return tl.where(i > j, tl.cumprod(tl.where(i - 1 > j, near[:, None], 1.0), 0), 0.0)


@triton.jit
def on_line(gate, n, stride, P: tl.constexpr):
    """[P]: a gate along a line, to whose first node the pointer leads, zero behind its end."""
    k = tl.arange(0, P)
    return tl.load(gate + k * stride, mask=k < n, other=0.0)


@triton.jit
def put_on_line(gradient, values, n, stride, P: tl.constexpr):
    """Store [P] along a line."""
    k = tl.arange(0, P)
    tl.store(gradient + k * stride, values, mask=k < n)


@triton.jit
def of_transition(decay, other_way, d_decay, ACC: tl.constexpr, EXACT: tl.constexpr):
    """dT_k = sum over j of R[k, j] (Rᵀ dR)[k, j]; `other_way` is Rᵀ, and dR is zero where R has to be."""
    shape: tl.constexpr = decay.shape
    return tl.sum(decay * mm(other_way, d_decay, tl.zeros(shape, ACC), EXACT), 1)
