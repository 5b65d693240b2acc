"""Whether a program is being written down for other runtimes.

Programs of `torch.export`, `torch.onnx.export` and `torch.jit.trace` hold operators of torch alone, since what reads
them does not know those of this package; and no loop whose length depends on sizes that may vary, since a loop is
unrolled. The ops then take forms of masked products and of doubling, which are slower here and the same anywhere.
"""

from __future__ import annotations

import torch

from plstm_torch.tracing import constant_while_traced

# Doublings that are written down where a size may vary: enough for 2**8 rows of a grid and 2**12 steps of a line, whose
# masks would not fit beyond anyway
GRID_DOUBLINGS = 8
SEQUENCE_DOUBLINGS = 12


@constant_while_traced
def is_exporting() -> bool:
    """Whether torch.export, the ONNX exporter or torch.jit.trace is tracing.

    The compiler asks when it traces: that of torch 2.11 takes `torch.compiler.is_exporting` itself for true.
    """
    return torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined]


def doublings(size: int | torch.SymInt, at_most: int) -> int:
    """Number of doublings that reach along an axis.

    Args:
        size: size of the axis; a symbolic one, which may vary, is limited to 2**at_most.
        at_most: doublings where it may vary.

    Returns:
        Their number.
    """
    if isinstance(size, torch.SymInt):
        torch._check(size <= 1 << at_most)
        return at_most
    return (int(size) - 1).bit_length()  # in torch.jit.trace sizes are tensors, and hold for the trace
