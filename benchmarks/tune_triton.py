"""Measure candidates for the table of tunings on this GPU, and print rows for `plstm_torch/ops/_triton/tuning.py`.

    python benchmarks/tune_triton.py --dtype bfloat16 --processes 8
    python benchmarks/tune_triton.py --kernels sequence_output sequence_states

Every candidate of a kernel is compiled and compared with the present row in a process of its own, since a compiler may
go wrong at one tile size in silence, and a program may end its process; those that are right are then timed one after
the other, in calls of the whole op with the other kernels as the table has them.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from gpu import Made, draw_graph, draw_grid, draw_matrices, draw_sequence, milliseconds

from plstm_testing.tolerances import rms_error, tolerance
from plstm_torch.ops import plstm_1d
from plstm_torch.ops._triton import tuning
from plstm_torch.ops._triton.tuning import Row

WARPS, STAGES, BLOCKS = (2, 4, 8), (1, 2, 3), (32, 64, 128)


def candidates(row: Row) -> Iterator[Row]:
    """Rows to try. The tile stays: all kernels of an op share it, and it decides the precision of a form."""
    for block, warps, stages in itertools.product(BLOCKS, WARPS, STAGES):
        yield replace(row, block=block, warps=warps, stages=stages, shared=0)


def matrices() -> Made:
    """A call of the 1D op with state-tracking matrices."""
    leaves = draw_matrices(64, 4_096, 64, 4)
    return leaves, lambda: plstm_1d(*leaves, implementation="triton")


def call_of(kernel: str, dtype: torch.dtype) -> Made:
    """A call that runs a kernel."""
    if kernel in ("sequence_responses", "sequence_chain"):
        leaves, call = matrices()
    elif kernel.startswith("sequence"):
        leaves, call = draw_sequence(64, 4_096, 64)
    elif kernel.startswith("graph"):
        leaves, call = draw_graph("large", 64)
    else:
        side, batch = (128, 4) if "blocks" in kernel else (28, 96)
        leaves, call = draw_grid(side, batch, "L" if "separable" in kernel else "P")
    for leaf in leaves:
        leaf.data = leaf.data.to(dtype)
    return leaves, call


def results(leaves: list[torch.Tensor], call: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
    """The output, and the gradients of its sum."""
    for leaf in leaves:
        leaf.requires_grad_()
    output = call()
    return [output.detach(), *torch.autograd.grad(output, leaves, torch.ones_like(output))]


def use(kernel: str, name: str, row: Row) -> None:
    """Put a row in the place of the table's."""
    tuning.TABLE = {**tuning.TABLE, (kernel, name): (row,)}


def verdict(kernel: str, name: str, row: Row) -> str:
    """What is wrong with a row; empty if nothing is."""
    torch.manual_seed(0)
    leaves, call = call_of(kernel, getattr(torch, name))
    try:
        right = results(leaves, call)
        use(kernel, name, row)
        found = results(leaves, call)
        errors = [rms_error(one.double().cpu(), other.double().cpu()) for one, other in zip(found, right, strict=True)]
    except Exception as error:  # whatever a compiler or a device refuses is no candidate
        return type(error).__name__
    return "" if max(errors) <= tolerance(name, "gradient") else f"WRONG by {max(errors):.1e}"


def checked(rows: Sequence[tuple[str, str, Row]], processes: int) -> list[tuple[str, str, Row]]:
    """Those that compile and are right; the others are printed."""
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=1) as pool:
        verdicts = pool.starmap(verdict, rows, chunksize=1)
    for (kernel, name, row), wrong in zip(rows, verdicts, strict=True):
        if wrong:
            print(f"# {kernel} {name} {row}: {wrong}", flush=True)
    return [one for one, wrong in zip(rows, verdicts, strict=True) if not wrong]


def best(kernel: str, name: str, rows: Sequence[Row]) -> tuple[Row, float, float]:
    """The fastest row, with its time and that of the present one."""
    leaves, call = call_of(kernel, getattr(torch, name))
    (present, *_) = tuning.TABLE[kernel, name]
    times: dict[Row, float] = {}
    for row in (present, *rows):
        use(kernel, name, row)
        times[row] = milliseconds(lambda: results(leaves, call))
    use(kernel, name, present)
    chosen = min(times, key=lambda row: times[row])
    return chosen, times[chosen], times[present]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32", "float64"])
    known: list[Any] = sorted({kernel for kernel, _ in tuning.TABLE})
    parser.add_argument("--kernels", nargs="+", default=known, choices=known, metavar="KERNEL", help=", ".join(known))
    parser.add_argument("--processes", type=int, default=4, metavar="N", help="compile in N processes")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("torch finds no CUDA device")
    print(f"# {torch.cuda.get_device_name()}, torch {torch.__version__}; set `shared` to what the offline test reports")
    named = [kernel for kernel in options.kernels if (kernel, options.dtype) in tuning.TABLE]
    tried = [
        (kernel, options.dtype, row) for kernel in named for row in candidates(tuning.TABLE[kernel, options.dtype][0])
    ]
    right = checked(tried, options.processes)
    for kernel in named:
        row, time, before = best(kernel, options.dtype, [row for name, _, row in right if name == kernel])
        print(f'    ("{kernel}", "{options.dtype}"): ({row},),  # {time:.3f} ms, was {before:.3f}', flush=True)


if __name__ == "__main__":
    main()
