"""Measure candidates for the table of tunings on this GPU, and print rows for `plstm_torch/ops/_triton/tuning.py`.

    python benchmarks/tune_triton.py --dtype bfloat16

Every candidate of a kernel is timed in calls of the whole op, with the other kernels as the table has them, and is
taken only if its results are those of the present row: a tile size at which a compiler goes wrong must not win.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from gpu import draw, draw_graph, draw_grid, draw_matrices, milliseconds

from plstm_testing.tolerances import rms_error, tolerance
from plstm_torch.ops import plstm_1d
from plstm_torch.ops._triton import tuning
from plstm_torch.ops._triton.tuning import Row

WARPS, STAGES, BLOCKS = (2, 4, 8), (1, 2, 3), (32, 64, 128)


def candidates(row: Row) -> Iterator[Row]:
    """Rows to try. The tile stays: all kernels of an op share it, and it decides the precision of a form."""
    for block, warps, stages in itertools.product(BLOCKS, WARPS, STAGES):
        yield replace(row, block=block, warps=warps, stages=stages, shared=0)


def sequence(dtype: torch.dtype, dim: int) -> tuple[list[torch.Tensor], Callable[[], torch.Tensor]]:
    """A call of the 1D op."""
    leaves = [draw(64, 4_096, dim, 1, dtype=dtype) for _ in range(3)]
    leaves += [draw(64, 4_096, 1, 1, 1, dtype=dtype), torch.sigmoid(draw(64, 4_096, 1, 1, dtype=dtype) + 4)]
    leaves += [draw(64, 4_096, *(1,) * count, dtype=dtype) for count in (3, 4)]
    return leaves, lambda: plstm_1d(*leaves, implementation="triton")


def matrices(dtype: torch.dtype) -> tuple[list[torch.Tensor], Callable[[], torch.Tensor]]:
    """A call of the 1D op with state-tracking matrices."""
    leaves = draw_matrices(64, 4_096, 64, 4)
    for leaf in leaves:
        leaf.data = leaf.data.to(dtype)
    return leaves, lambda: plstm_1d(*leaves, implementation="triton")


def call_of(kernel: str, dtype: torch.dtype) -> tuple[list[torch.Tensor], Callable[[], torch.Tensor]]:
    """A call that runs a kernel."""
    if kernel in ("sequence_responses", "sequence_chain"):
        return matrices(dtype)
    if kernel.startswith("sequence"):
        return sequence(dtype, 64)
    if kernel.startswith("graph"):
        leaves, call = draw_graph("large", 64)
        for leaf in leaves:
            leaf.data = leaf.data.to(dtype)
        return leaves, call
    side, batch = (128, 4) if "blocks" in kernel else (28, 96)
    leaves, call = draw_grid(side, batch, "L" if "separable" in kernel else "P")
    for leaf in leaves:
        leaf.data = leaf.data.to(dtype)
    return leaves, call


def results(leaves: list[torch.Tensor], call: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
    for leaf in leaves:
        leaf.requires_grad_()
    output = call()
    return [output.detach(), *torch.autograd.grad(output, leaves, torch.ones_like(output))]


def best(kernel: str, name: str, table: dict[Any, Any]) -> tuple[Row, float, float]:
    """The fastest row that is right, with its time and that of the present row."""
    leaves, call = call_of(kernel, getattr(torch, name))
    (present, *_) = table[kernel, name]
    right = results(leaves, call)
    found = before = milliseconds(lambda: results(leaves, call))
    chosen = present
    for row in candidates(present):
        table[kernel, name] = (row,)
        try:
            got = results(leaves, call)
            time = milliseconds(lambda: results(leaves, call))
        except Exception as error:  # whatever a compiler or a device refuses is no candidate
            print(f"# {kernel} {name} {row}: {type(error).__name__}")
            continue
        errors = [rms_error(one.double().cpu(), other.double().cpu()) for one, other in zip(got, right, strict=True)]
        if max(errors) > tolerance(name, "gradient"):
            print(f"# {kernel} {name} {row}: WRONG by {max(errors):.1e}")
        elif time < found:
            chosen, found = row, time
    table[kernel, name] = (present,)
    return chosen, found, before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32", "float64"])
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("torch finds no CUDA device")
    torch.manual_seed(0)
    print(f"# {torch.cuda.get_device_name()}, torch {torch.__version__}; set `shared` to what the offline test reports")
    tuning.TABLE = table = dict(tuning.TABLE)
    for kernel in sorted(kernel for kernel, name in table if name == options.dtype):
        row, time, before = best(kernel, options.dtype, table)
        print(f'    ("{kernel}", "{options.dtype}"): ({row},),  # {time:.3f} ms, was {before:.3f}', flush=True)


if __name__ == "__main__":
    main()
