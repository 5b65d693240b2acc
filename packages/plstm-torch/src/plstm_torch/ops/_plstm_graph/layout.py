"""Places of nodes, edges and line edges in arrays that are padded to the largest graph of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from plstm_config.topology.edges import ranks
from plstm_torch.constants import constant


@dataclass(frozen=True, eq=False)
class DenseLayout:
    """Where everything lies in the padded arrays of G graphs.

    Attributes:
        num_graphs: G.
        max_nodes: nodes of the largest graph, at least 1.
        max_edges: edges of the largest graph, at least 1.
        nodes: place of each node in [G * max_nodes].
        edges: place of each edge in [G * max_edges].
        sources: place of each edge in [G * max_edges * max_nodes], with its tail.
        marks: place of each edge in [G * max_nodes * max_edges], with its head.
        lines: place of each line edge in [G * max_edges * max_edges], outgoing before incoming.
    """

    num_graphs: int
    max_nodes: int
    max_edges: int
    nodes: Tensor
    edges: Tensor
    sources: Tensor
    marks: Tensor
    lines: Tensor


def compute_layout(
    graph: np.ndarray,
    tail: np.ndarray,
    head: np.ndarray,
    incoming: np.ndarray,
    outgoing: np.ndarray,
    device: torch.device,
) -> DenseLayout:
    """The layout of a batch of graphs.

    Args:
        graph: number of the graph that each node belongs to [N].
        tail: node where each edge starts [E], edges in a topological order.
        head: node where it ends [E].
        incoming: edge where each line edge comes from [L].
        outgoing: edge where it leads [L].
        device: of the places.

    Returns:
        The layout.
    """
    graph_of_edges = graph[tail]
    num_graphs = int(graph.max(initial=-1)) + 1
    node, edge = ranks(graph, num_graphs), ranks(graph_of_edges, num_graphs)
    max_nodes, max_edges = (int(rank.max(initial=0)) + 1 for rank in (node, edge))

    def place(group: np.ndarray, *digits: tuple[np.ndarray, int]) -> Tensor:
        for digit, base in digits:
            group = group * base + digit
        return constant(group, device)

    return DenseLayout(
        num_graphs=num_graphs,
        max_nodes=max_nodes,
        max_edges=max_edges,
        nodes=place(graph, (node, max_nodes)),
        edges=place(graph_of_edges, (edge, max_edges)),
        sources=place(graph_of_edges, (edge, max_edges), (node[tail], max_nodes)),
        marks=place(graph_of_edges, (node[head], max_nodes), (edge, max_edges)),
        lines=place(graph_of_edges[outgoing], (edge[outgoing], max_edges), (edge[incoming], max_edges)),
    )
