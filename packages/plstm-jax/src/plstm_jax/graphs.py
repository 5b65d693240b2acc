"""From what users call a graph to a topology, whose index arrays the formulas gather with."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import numpy as np

from plstm_config.topology import DagTopology, Mode
from plstm_jax.ops import GraphPlan
from plstm_jax.padded_graph import PaddedGraph

Graph: TypeAlias = DagTopology | PaddedGraph


def as_topology(graph: Any, num_nodes: int, mode: Mode | None = None) -> Graph:
    """Read what a module on graphs is given.

    Args:
        graph: a topology, a padded graph, or the edges of a directed acyclic graph as concrete integers [2, E] of tails
            and heads. A topology keeps what was derived from it; edges are read anew at every call.
        num_nodes: number of nodes that there are features of.
        mode: the mode that the module needs; None takes any.

    Returns:
        The topology in this mode; in P-mode if made from edges for any.

    Raises:
        TypeError: if the graph is neither, or the edges are no integers.
        ValueError: if the topology has another number of nodes, or the edges are no directed acyclic graph.
    """
    if isinstance(graph, np.ndarray | jax.Array) and not isinstance(graph, jax.core.Tracer):
        return DagTopology.from_edge_index(num_nodes, np.asarray(graph), mode or "P")
    if not isinstance(graph, DagTopology | PaddedGraph):
        raise TypeError(f"graph: expected a DagTopology or an edge_index [2,E], got {type(graph).__name__}")
    if graph.num_nodes != num_nodes:
        raise ValueError(f"graph: expected a graph of N={num_nodes} nodes, as many as x has, got {graph.num_nodes}")
    return graph if mode is None else graph.with_mode(mode)


def first_nodes(graph: Graph) -> Any:
    """The first node of the graph that each node belongs to [N]."""
    return graph.first_node if isinstance(graph, PaddedGraph) else graph.node_ptr[graph.node_graph]


def op_graph(graph: Graph) -> DagTopology | GraphPlan:
    """What the op is given."""
    return graph.plan if isinstance(graph, PaddedGraph) else graph


def check_degrees(topology: Graph, max_edges: int) -> None:
    """Check that no node has too many edges on one side; not for traced graphs.

    Args:
        topology: the graph.
        max_edges: the largest number of edges that may enter, and that may leave a node.

    Raises:
        ValueError: if a node has more; the message names it.
    """
    for degree, way in ((topology.in_degree, "into"), (topology.out_degree, "out of")):
        if not isinstance(degree, jax.core.Tracer) and degree.max(initial=0) > max_edges:
            raise ValueError(
                f"graph: expected at most max_edges={max_edges} edges {way} a node, "
                f"got {degree.max()} {way} node {degree.argmax()}; "
                "raise max_edges, or give edges features (pLSTMGraphEdge)"
            )
