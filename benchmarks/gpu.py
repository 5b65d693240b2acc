"""Time the Triton kernels on a GPU beside what others offer: one call, JSON out.

    python benchmarks/gpu.py --json gpu.json

1D against scaled_dot_product_attention and, where flash-linear-attention is installed, its chunk_simple_gla; 1D with
state-tracking matrices against its form in torch; 2D, four orientations, against scaled_dot_product_attention; graphs,
in float32, against the forms in torch. Medians of CUDA events, else bfloat16. Beside each time stands the share of the
floor that reads and writes every tensor once, at the copy rate that this device reaches.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from plstm_config.topology import DagTopology
from plstm_torch.ops import plstm_1d, plstm_2d_oriented, plstm_graph

LENGTHS = (2_048, 8_192, 32_768, 65_536)
HEAD_DIMENSIONS = (64, 128)
TOKENS = 1 << 19  # batch times heads times length of the 1D measurements
GRIDS = ((14, 384), (28, 96), (64, 12), (128, 12))  # side, batch times heads
GRAPHS = ("small", "large", "chain")
Row = dict[str, Any]


def milliseconds(function: Callable[[], object], repeats: int = 20) -> float:
    """Median over calls by the clock of the device, after three to warm up."""
    for _ in range(3):
        function()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def copy_rate() -> float:
    """Bytes a millisecond that a copy reads and writes."""
    numbers = torch.empty(1 << 28, dtype=torch.float32, device="cuda")
    target = torch.empty_like(numbers)
    return 2 * numbers.nbytes / milliseconds(lambda: target.copy_(numbers))


def draw(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(*shape, device="cuda", dtype=dtype)


def measured(name: str, function: Callable[[], torch.Tensor], leaves: list[torch.Tensor], rate: float) -> Row:
    """Forward, and forward with backward, and the shares of the floor: every tensor once, twice as often backward."""
    with torch.no_grad():
        forward = milliseconds(function)
    for leaf in leaves:
        leaf.requires_grad_()
    weight = torch.randn_like(function())
    both = milliseconds(lambda: torch.autograd.grad(function(), leaves, weight))
    floor = (sum(leaf.nbytes for leaf in leaves) + weight.nbytes) / rate
    for leaf in leaves:
        leaf.requires_grad_(False)
    shares = {"share_of_floor": floor / forward, "share_of_floor_both": 3 * floor / both}
    return {"form": name, "forward_ms": forward, "both_ms": both, **shares}


def attention(batch: int, length: int, dim: int, rate: float, causal: bool) -> Row:
    tensors = [draw(batch, 1, length, dim) for _ in range(3)]
    return measured("sdpa", lambda: scaled_dot_product_attention(*tensors, is_causal=causal), tensors, rate)


def sequences(rate: float) -> list[Row]:
    """The 1D op and its peers."""
    rows = []
    for dim in HEAD_DIMENSIONS:
        for length in LENGTHS:
            batch = TOKENS // length
            vectors = [draw(batch, length, dim, 1) for _ in range(3)]
            source, mark, direct = (draw(batch, length, *(1,) * count) for count in (3, 3, 4))
            transition = torch.sigmoid(draw(batch, length, 1, 1) + 4)
            leaves = [*vectors, source, transition, mark, direct]
            found = [measured("triton", lambda x=leaves: plstm_1d(*x, implementation="triton"), leaves, rate)]
            found.append(attention(batch, length, dim, rate, causal=True))
            if find_spec("fla"):
                found.append(gated_linear_attention(batch, length, dim, rate))
            rows += [{"op": "plstm_1d", "length": length, "batch": batch, "dim": dim, **row} for row in found]
    return rows


def matrices(rate: float) -> list[Row]:
    """The 1D op with state-tracking matrices, and its torch form."""
    rows = []
    for length in LENGTHS:
        batch = TOKENS // length
        leaves = draw_matrices(batch, length, 64, 4)
        for name in ("triton", "chunkwise"):
            row = measured(name, lambda x=leaves, form=name: plstm_1d(*x, implementation=form), leaves, rate)
            rows.append({"op": "plstm_1d JT=4", "length": length, "batch": batch, "dim": 64, **row})
    return rows


def draw_matrices(batch: int, length: int, dim: int, size: int) -> list[torch.Tensor]:
    """Arguments with JT = JV = JO = size; transitions are rotations, a little shortened since bfloat16 rounds them."""
    vectors = [draw(batch, length, dim, 1), draw(batch, length, dim, 1), draw(batch, length, dim, size)]
    source, mark, direct = (
        draw(batch, length, *shape) for shape in ((size, 1, size), (size, 1, size), (size, 1, 1, size))
    )
    skew = draw(batch, length, size, size).float()
    transition = 0.95 * torch.linalg.matrix_exp(skew - skew.mT)
    return [*vectors, source, transition.to(source.dtype), mark, direct]


def gated_linear_attention(batch: int, length: int, dim: int, rate: float) -> Row:
    from fla.ops.simple_gla import chunk_simple_gla

    leaves = [draw(1, length, batch, dim) for _ in range(3)] + [-torch.rand(1, length, batch, device="cuda")]
    return measured("fla chunk_simple_gla", lambda: chunk_simple_gla(*leaves)[0], leaves, rate)


def grids(rate: float) -> list[Row]:
    """The 2D op with four orientations, and attention over all nodes."""
    rows = []
    for side, batch in GRIDS:
        for mode in ("L", "P"):
            leaves, call = draw_grid(side, batch, mode)
            row = measured(f"triton {mode}", call, leaves, rate)
            rows.append({"op": "plstm_2d_oriented", "side": side, "batch": batch, "dim": 64, **row})
        row = attention(batch, side * side, 64, rate, causal=False)
        rows.append({"op": "plstm_2d_oriented", "side": side, "batch": batch, "dim": 64, **row})
    return rows


def draw_grid(side: int, batch: int, mode: str) -> tuple[list[torch.Tensor], Callable[[], torch.Tensor]]:
    """Arguments of a call, and the call."""
    gates = {"source_r": 3, "source_d": 3, "transition_rl": 2, "transition_du": 2, "mark_l": 3}
    gates |= {} if mode == "P" else {"transition_ru": 2, "mark_u": 3}
    tensors = {name: draw(batch, 4, side, side, *(1,) * count) for name, count in gates.items()}
    for name in tensors:
        if name.startswith("transition"):
            tensors[name] = torch.sigmoid(tensors[name]) / (2 if mode == "P" else 1)
    tensors |= {name: draw(batch, side, side, 64, 1) for name in ("query", "key", "value")}
    tensors["direct"] = draw(batch, side, side, 1, 1, 1, 1)
    keywords = {"implementation": "triton"} | ({"mode": "P"} if mode == "P" else {})
    return list(tensors.values()), lambda: plstm_2d_oriented(**tensors, **keywords)


def graphs(rate: float) -> list[Row]:
    """The graph op, and its torch forms."""
    rows = []
    for kind in GRAPHS:
        for name in ("triton", "recurrent", "parallel"):
            if name == "parallel" and kind != "small":
                continue  # memory goes with the square of the edges
            leaves, call = draw_graph(kind, 64, name)
            row = measured(name, call, leaves, rate)
            rows.append({"op": "plstm_graph", "graph": kind, "edges": leaves[3].shape[1], "dim": 64, **row})
    return rows


def draw_graph(kind: str, dim: int, name: str = "triton") -> tuple[list[torch.Tensor], Callable[[], torch.Tensor]]:
    """Arguments of a call with four heads, and the call; the graphs are those of `plstm_graph.py`, on the CPU."""
    topology = {
        "small": lambda: DagTopology.batch([random_graph(20, 22, seed) for seed in range(64)]),
        "large": lambda: random_graph(50_000, 55_000, 0),
        "chain": lambda: DagTopology.from_edges(10_000, list(itertools.pairwise(range(10_000)))),
    }[kind]()
    nodes, edges, lines = topology.num_nodes, len(topology.edges), len(topology.line_edges)
    shapes = [(nodes, dim), (nodes, dim), (nodes, dim), (edges,), (lines,), (edges,), (nodes,)]
    leaves = [draw(4, *shape, dtype=torch.float32) for shape in shapes]
    leaves[4] = torch.sigmoid(leaves[4])
    return leaves, lambda: plstm_graph(*leaves, topology, implementation=name)


def random_graph(nodes: int, edges: int, seed: int) -> DagTopology:
    """Edges from lower to higher numbers of nodes, none of them twice."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(nodes, (2 * edges, 2), generator=generator).sort(1).values
    pairs = dict.fromkeys((a, b) for a, b in drawn.tolist() if a < b)
    return DagTopology.from_edges(nodes, list(pairs)[:edges])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("torch finds no CUDA device")
    torch.manual_seed(0)
    rate = copy_rate()
    about = {"card": torch.cuda.get_device_name(), "torch": torch.__version__, "copy_TB_per_s": rate / 1e9}
    print(about)
    rows = sequences(rate) + matrices(rate) + grids(rate) + graphs(rate)
    for row in rows:
        numbers = {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}
        print("  ".join(f"{name}={value}" for name, value in numbers.items()), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    if not all(math.isfinite(row["both_ms"]) for row in rows):
        raise SystemExit("a time is not finite")


if __name__ == "__main__":
    main()
