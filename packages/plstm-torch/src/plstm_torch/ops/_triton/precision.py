"""In which numbers kernels multiply and add, by the dtype of query, key and value.

* float64: float64 throughout.
* float32: products as three passes of tf32 ("tf32x3"), about float32; plain tf32 would miss the tolerance 40 times.
* float16: the same as float32. Weights of thousands would overflow in float16, and tf32 has the 11 bits of float16, so
  that one rounding of weights, of states and of the output each would leave nothing of the tolerance.
* bfloat16: products in bfloat16. States, what is written to them, and weights of values are split into the sum of two:
  a state that went through 16 bits keeps an error of 2e-3 for good, and weights rounded once more take short sequences
  beyond the tolerance of outputs. Gradients have room for one rounding. Products between decays are tf32.

Sums and states are float32 (float64 for float64) everywhere.
"""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl

_NUMBERS: dict[torch.dtype, dict[str, Any]] = {
    torch.float64: {"ACC": tl.float64, "OPERAND": tl.float64, "VALUES": "ieee", "EXACT": "ieee", "SPLIT": False},
    torch.float32: {"ACC": tl.float32, "OPERAND": tl.float32, "VALUES": "tf32x3", "EXACT": "tf32x3", "SPLIT": False},
    torch.float16: {"ACC": tl.float32, "OPERAND": tl.float32, "VALUES": "tf32x3", "EXACT": "tf32x3", "SPLIT": False},
    torch.bfloat16: {"ACC": tl.float32, "OPERAND": tl.bfloat16, "VALUES": "tf32", "EXACT": "tf32", "SPLIT": True},
}


def numbers(dtype: torch.dtype) -> dict[str, Any]:
    """Compile-time arguments of the kernels.

    Args:
        dtype: common dtype of query, key and value.

    Returns:
        ACC: dtype of sums. OPERAND: dtype of the operands of products. VALUES: precision of products with query, key
        and value. EXACT: precision of products between decays, and of those written to states. STATES: precision of
        products of states with decays, which leave the result in a state. SPLIT: whether wide operands (`dots.py`) are
        the sum of two numbers.
    """
    return _NUMBERS[dtype] | {"STATES": "ieee" if dtype == torch.float64 else "tf32x3"}
