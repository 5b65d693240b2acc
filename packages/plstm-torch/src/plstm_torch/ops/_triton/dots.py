"""Products of tiles in tensor cores. No accumulator is transposed to become an operand: compilers got that wrong."""

import triton
import triton.language as tl


@triton.jit
def mm(a, b, acc, PRECISION: tl.constexpr):
    """Acc + a b, the operands of one dtype."""
    return tl.dot(a, b, acc, input_precision=PRECISION, out_dtype=acc.dtype)


@triton.jit
def mm_wide(a, b, acc, OPERAND: tl.constexpr, PRECISION: tl.constexpr, SPLIT: tl.constexpr):
    """Acc + a b with a in the dtype of sums, which SPLIT makes the sum of two operands."""
    high = a.to(OPERAND)
    acc = mm(high, b, acc, PRECISION)
    if SPLIT:
        acc = mm((a - high.to(a.dtype)).to(OPERAND), b, acc, PRECISION)
    return acc


@triton.jit
def mm_by_wide(a, b, acc, OPERAND: tl.constexpr, PRECISION: tl.constexpr, SPLIT: tl.constexpr):
    """Acc + a b with b in the dtype of sums."""
    high = b.to(OPERAND)
    acc = mm(a, high, acc, PRECISION)
    if SPLIT:
        acc = mm(a, (b - high.to(b.dtype)).to(OPERAND), acc, PRECISION)
    return acc


@triton.jit
def read_tile(start, rows, row_stride, columns, column_stride, row_mask, column_mask, OPERAND: tl.constexpr):
    """[rows, columns] from memory with any strides, zero outside, as an operand."""
    places = start + rows[:, None] * row_stride + columns[None, :] * column_stride
    return tl.load(places, mask=row_mask[:, None] & column_mask[None, :], other=0.0).to(OPERAND)
