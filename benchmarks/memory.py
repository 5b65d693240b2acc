"""Memory of forward and backward, one head, far beyond the sizes of the other benchmarks: on the CPU, or on a GPU.

    python benchmarks/memory.py --json FILE                    # some minutes on two cores
    python benchmarks/memory.py --device cuda --sides 128 256 512 1024
    python benchmarks/memory.py --report FILE                  # its table in docs/benchmarks.md

Each size is run once, in ascending order; the first one of an op also compiles and loads. What is counted is the peak
beyond the arguments, the gradients among it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plstm_1d
import plstm_2d
import plstm_graph
import torch
from measuring import Row, extra_memory, machine, write_table

from plstm_torch import ops

PAGE = Path(__file__).parents[1] / "docs/benchmarks.md"
LENGTHS = (10_000, 100_000, 1_000_000)
SIDES = (64, 128, 256, 512)  # the largest takes minutes on a core, and 1024 a quarter of an hour
EDGES = (10_000, 100_000, 1_000_000)
DIM, GRAPH_DIM = 64, 16  # the states of all edges are kept: DK DV numbers for each


@dataclass(frozen=True)
class Case:
    """An op at one size: what it is made of, and the call."""

    op: str
    size: int
    unit: str
    make: Callable[[], tuple[list[torch.Tensor], Callable[..., torch.Tensor]]]


def cases(sides: Sequence[int]) -> Iterator[Case]:
    """The sizes of each op in ascending order."""
    for length in LENGTHS:
        yield Case("plstm_1d", length, "steps", lambda length=length: _sequence(length))
    for mode in plstm_2d.MODES:
        for side in sides:
            yield Case(f"plstm_2d_oriented {mode}", side**2, "patches", lambda s=side, m=mode: _grid(s, m))
    for edges in EDGES:
        yield Case("plstm_graph", edges, "edges", lambda edges=edges: _graph(edges))


def _sequence(length: int) -> tuple[list[torch.Tensor], Callable[..., torch.Tensor]]:
    return plstm_1d.draw(length, 1, DIM, {}), ops.plstm_1d


def _grid(side: int, mode: str) -> tuple[list[torch.Tensor], Callable[..., torch.Tensor]]:
    arguments = plstm_2d.draw(side, 1, DIM, mode)
    names = [name for name, value in arguments.items() if isinstance(value, torch.Tensor)]
    keywords = {name: value for name, value in arguments.items() if name not in names}

    def call(*tensors: torch.Tensor) -> torch.Tensor:
        return ops.plstm_2d_oriented(**dict(zip(names, tensors, strict=True)), **keywords)

    return [arguments[name] for name in names], call


def _graph(edges: int) -> tuple[list[torch.Tensor], Callable[..., torch.Tensor]]:
    topology = plstm_graph.draw_topology(np.random.default_rng(0), 1, 10 * edges // 11, edges)
    return plstm_graph.draw(topology, 1, GRAPH_DIM), lambda *tensors: ops.plstm_graph(*tensors, topology)


def measured(case: Case, device: str, dtype: torch.dtype) -> Row:
    """Peak of forward and backward in megabytes, and the seconds of both."""
    leaves, call = case.make()
    leaves = [leaf.detach().to(device, dtype).requires_grad_() for leaf in leaves]

    def both() -> None:
        output = call(*leaves)
        torch.autograd.grad(output, leaves, torch.ones_like(output))

    begun = time.perf_counter()
    if device == "cpu":
        peak = extra_memory(both)
    else:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        both()
        torch.cuda.synchronize()
        peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    seconds = time.perf_counter() - begun
    arguments = sum(leaf.nbytes for leaf in leaves) / 2**20
    return {
        "op": case.op,
        "size": case.size,
        "unit": case.unit,
        "extra_megabytes": peak,
        "arguments_megabytes": arguments,
        "seconds": seconds,
    }


def table(rows: list[Row]) -> str:
    """A line for each op and size."""
    lines = ["| one head, float32 | size | extra memory | arguments |", "|---|---|---|---|"]
    for row in rows:
        peak, own = (f"{row[name]:,.0f} MB" for name in ("extra_megabytes", "arguments_megabytes"))
        lines.append(f"| `{row['op']}` | {row['size']:,} {row['unit']} | {peak} | {own} |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--report", type=Path, help="earlier results: write their table, measure nothing")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float64", "float32", "bfloat16", "float16"])
    parser.add_argument("--only", default="", help="part of the names of what is measured")
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, help="of the grids")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.report:
        write_table(PAGE, table(json.loads(options.report.read_text(encoding="utf-8"))["rows"]))
        return
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    about = {**machine(), "date": time.strftime("%Y-%m-%d"), "dtype": options.dtype}
    if options.device == "cuda":
        about["card"] = torch.cuda.get_device_name()
    rows = []
    for case in cases(options.sides):
        if options.only in case.op:
            rows.append(row := measured(case, options.device, getattr(torch, options.dtype)))
            print("  ".join(f"{name}={value}" for name, value in row.items()), flush=True)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
