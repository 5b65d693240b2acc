"""Every kernel once, forwards and backwards, on the smallest sizes that have several tiles: for compute-sanitizer."""

from __future__ import annotations

import torch

from plstm_config.topology import DagTopology
from plstm_torch.ops import plstm_1d, plstm_2d_oriented, plstm_graph

DEVICE = "cuda"


def draw(shape, dtype):
    return torch.randn(*shape, device=DEVICE, dtype=dtype, requires_grad=True)


def run_sequence(dtype):
    shapes = [(24, 1), (24, 1), (20, 1), (1, 1, 1), (1, 1), (1, 1, 1), (1, 1, 1, 1)]
    tensors = [draw((2, 150, *shape), dtype) for shape in shapes]
    bounds = torch.tensor([0, 70, 70, 150])
    output, last = plstm_1d(*tensors, implementation="triton", cu_seqlens=bounds, return_last_state=True)
    (output.sum() + last.sum()).backward()


def run_matrices(dtype):
    shapes = [(24, 2), (24, 1), (20, 2), (3, 1, 2), (3, 3), (2, 2, 3), (2, 2, 1, 2)]
    tensors = [draw((2, 40, *shape), dtype) for shape in shapes]
    bounds = torch.tensor([0, 19, 19, 40])
    output, last = plstm_1d(*tensors, implementation="triton", cu_seqlens=bounds, return_last_state=True)
    (output.sum() + last.sum()).backward()


def run_grid(dtype, mode):
    gates = {"source_r": 3, "source_d": 3, "transition_rl": 2, "transition_du": 2, "mark_l": 3}
    gates |= {} if mode == "P" else {"transition_ru": 2, "mark_u": 3}
    tensors = {name: draw((1, 4, 9, 7, *(1,) * count), dtype) for name, count in gates.items()}
    tensors |= {name: draw((1, 9, 7, 20, 1), dtype) for name in ("query", "key", "value")}
    tensors["direct"] = draw((1, 9, 7, 1, 1, 1, 1), dtype)
    output = plstm_2d_oriented(**tensors, implementation="triton", mode="P" if mode == "P" else None)
    output.sum().backward()


def run_graph(dtype, edges):
    """A chain is walked, a star goes by levels."""
    topology = DagTopology.batch([DagTopology.from_edges(10, edges), DagTopology.from_edges(2, [(0, 1)])])
    num_edges, lines = len(topology.edges), len(topology.line_edges)
    nodes = [draw((2, 12, *shape), dtype) for shape in ((80, 2), (80, 1), (72, 2))]
    source, mark = draw((2, num_edges, 2, 1, 2), dtype), draw((2, num_edges, 1, 2, 2), dtype)
    gates = source, draw((2, lines, 2, 2), dtype), mark, draw((2, 12, 1, 2, 1, 2), dtype)
    output, states = plstm_graph(*nodes, *gates, topology, implementation="triton", return_last_state=True)
    (output.sum() + states.sum()).backward()


def run_blocks(dtype):
    gates = {"source_r": 3, "source_d": 3, "mark_l": 3, "mark_u": 3}
    gates |= {f"transition_{turn}": 2 for turn in ("rl", "du", "dl", "ru")}
    tensors = {name: draw((1, 4, 9, 7, *(1,) * count), dtype) for name, count in gates.items()}
    tensors |= {name: draw((1, 9, 7, 20, 1), dtype) for name in ("query", "key", "value")}
    tensors["direct"] = draw((1, 9, 7, 1, 1, 1, 1), dtype)
    states = draw((1, 4, 7, 20, 20, 1), dtype), draw((1, 4, 9, 20, 20, 1), dtype)
    output, last = plstm_2d_oriented(
        **tensors, initial_state=states, return_last_state=True, implementation="triton"
    )  # fmt: skip
    (output.sum() + sum(side.sum() for side in last)).backward()


if __name__ == "__main__":
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        run_sequence(dtype)
        run_matrices(dtype)
        run_grid(dtype, "L")
        run_grid(dtype, "P")
        run_graph(dtype, [(n, n + 1) for n in range(9)])
        run_graph(dtype, [(0, n) for n in range(1, 9)] + [(1, 9)])
        run_blocks(dtype)
    torch.cuda.synchronize()
