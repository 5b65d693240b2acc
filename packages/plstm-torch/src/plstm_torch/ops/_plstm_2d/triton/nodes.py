"""Vectors of nodes in tiles, in device code: places are offsets of nodes from the first one, for any strides."""

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
