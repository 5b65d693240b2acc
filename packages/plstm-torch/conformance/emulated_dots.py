"""What GPUs round, in Triton's interpreter: import this before the kernels.

The interpreter multiplies in float32 whatever precision a kernel asks for, multiplies bfloat16 as bit patterns, and
cuts numbers off where it makes them bfloat16. Here operands are rounded as tensor cores round them, and numbers to
nearest, so that a kernel with the wrong precision fails the tolerances without a GPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton.language as tl
from triton._C.libtriton import ir
from triton.runtime import interpreter

_TF32_BITS, _BFLOAT16_BITS = 10, 7


def _rounded(array: Any, bits: int) -> Any:
    """Float32 numbers rounded to so many bits behind the point, to nearest with ties to even."""
    pattern, drop = np.ascontiguousarray(array, np.float32).view(np.uint32).astype(np.uint64), 23 - bits
    up = (1 << (drop - 1)) - 1 + ((pattern >> np.uint64(drop)) & np.uint64(1))
    kept = ((pattern + up) & ~np.uint64((1 << drop) - 1)).astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(array), kept, array).astype(np.float32)


def _operand(handle: Any) -> Any:
    if handle.dtype.scalar == tl.bfloat16:
        return (handle.data.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return handle.data


def _create_dot(self: Any, a: Any, b: Any, d: Any, input_precision: Any, max_num_imprecise_acc: Any) -> Any:
    left, right, single = _operand(a), _operand(b), a.dtype.scalar == tl.float32
    with np.errstate(all="ignore"):
        if single and input_precision == ir.INPUT_PRECISION.TF32:
            left, right = _rounded(left, _TF32_BITS), _rounded(right, _TF32_BITS)
        if single and input_precision == ir.INPUT_PRECISION.TF32x3:
            high = [_rounded(array, _TF32_BITS) for array in (left, right)]
            low = [_rounded(array - part, _TF32_BITS) for array, part in zip((left, right), high, strict=True)]
            product = np.matmul(high[0], high[1]) + (np.matmul(high[0], low[1]) + np.matmul(low[0], high[1]))
        else:
            product = np.matmul(left, right, dtype=d.data.dtype)
        return interpreter.TensorHandle((product + d.data).astype(d.data.dtype), d.dtype.scalar)


def _cast(self: Any, source: Any, target: Any, *mode: Any) -> Any:
    """Float32 to bfloat16 by rounding; everything else as it was."""
    if source.dtype.scalar == tl.float32 and target.scalar == tl.bfloat16:
        pattern = _rounded(source.data, _BFLOAT16_BITS).view(np.uint32) >> np.uint32(16)
        return interpreter.TensorHandle(pattern.astype(np.uint16), tl.bfloat16)
    return (_CAST_MODE if mode else _CAST)(self, source, target, *mode)


_CAST, _CAST_MODE = interpreter.InterpreterBuilder.cast_impl, interpreter.InterpreterBuilder.create_fp_to_fp
interpreter.InterpreterBuilder.cast_impl = interpreter.InterpreterBuilder.create_fp_to_fp = _cast
interpreter.InterpreterBuilder.create_dot = _create_dot
np.seterr(over="ignore", invalid="ignore")  # a GPU does not warn
# what a GPU offers; the interpreter's own list is shorter
object.__setattr__(
    interpreter.interpreter_builder.options, "allowed_dot_input_precisions", ("tf32", "tf32x3", "ieee", "bf16x3")
)
