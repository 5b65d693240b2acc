"""Time the graph op: medians of forward and of forward and backward, as a table and as JSON.

python benchmarks/plstm_graph.py --json plstm_graph.json
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch
from measuring import add_options, describe, machine, measure, write

from plstm_config import pLSTMGraphEdgeLayerConfig
from plstm_config.topology import DagTopology
from plstm_torch import build
from plstm_torch.ops import plstm_graph

# name: graphs, nodes of each, edges of each (None: a chain), implementations
CASES = {
    "64 graphs of 20/22": (64, 20, 22, ("recurrent", "parallel")),
    "1 graph of 1,000/1,100": (1, 1000, 1100, ("recurrent", "parallel")),
    "1 graph of 100,000/110,000": (1, 100_000, 110_000, ("recurrent",)),
    "chain of 1,000": (1, 1000, None, ("recurrent", "parallel")),
    "chain of 10,000": (1, 10_000, None, ("recurrent",)),
}


def draw_topology(random: np.random.Generator, graphs: int, nodes: int, edges: int | None) -> DagTopology:
    def one() -> DagTopology:
        if edges is None:
            pairs = np.stack([np.arange(nodes - 1), np.arange(1, nodes)], 1)
        else:
            pairs = np.sort(random.integers(0, nodes, [3 * edges, 2]), 1)
            pairs = random.permutation(np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0))[:edges]
        return DagTopology.from_edges(nodes, pairs)

    return DagTopology.batch([one() for _ in range(graphs)])


def draw(topology: DagTopology, heads: int, dim: int) -> list[torch.Tensor]:
    nodes, edges, lines = topology.num_nodes, len(topology.edges), len(topology.line_edges)
    shapes = [(nodes, dim), (nodes, dim), (nodes, dim), (edges,), (lines,), (edges,), (nodes,)]
    tensors = [torch.randn(heads, *shape) for shape in shapes]
    tensors[4] = 0.3 * tensors[4]
    return [tensor.requires_grad_() for tensor in tensors]


def measure_op(topology: DagTopology, implementation: str, options: argparse.Namespace) -> dict[str, object]:
    tensors = draw(topology, options.heads, options.dim)
    run = partial(plstm_graph, *tensors, topology, implementation=implementation)
    return {"implementation": implementation, **measure(run, tensors, options)}


def measure_layer(topology: DagTopology, implementation: str, options: argparse.Namespace) -> dict[str, object]:
    """The layer with gates from node and edge features around the op, 4 edge features."""
    width = options.heads * options.dim
    config = pLSTMGraphEdgeLayerConfig(
        input_dim=width, num_heads=options.heads, edge_input_dim=4, dtype="float32", implementation=implementation
    )
    layer = build(config)
    x = torch.randn(topology.num_nodes, width, requires_grad=True)
    edge_attr = torch.randn(topology.num_input_edges, 4)
    run = partial(layer, x, topology, edge_attr)
    row = measure(run, [x, *layer.parameters()], options)
    return {"implementation": f"edge layer, {implementation}", **row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--dim", type=int, default=24, help="DK and DV")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    about = machine()
    print("  ".join(f"{name}: {value}" for name, value in about.items()))
    print(f"H={options.heads} DK=DV={options.dim} float32, topology prepared, milliseconds: median (best)")
    rows = []
    for name in options.cases:
        graphs, nodes, edges, implementations = CASES[name]
        topology = draw_topology(np.random.default_rng(0), graphs, nodes, edges)
        sizes = {"nodes": topology.num_nodes, "edges": len(topology.edges), "line_edges": len(topology.line_edges)}
        runs = [partial(measure_op, topology, implementation, options) for implementation in implementations]
        if len(topology.edges) < 10_000:
            runs.append(partial(measure_layer, topology, "auto", options))
        for run in runs:
            row = {"case": name, **sizes, **run()}
            rows.append(row)
            print(f"{name:26} {row['implementation']:16} {describe(row)}", flush=True)
    write(options, about, rows)


if __name__ == "__main__":
    main()
