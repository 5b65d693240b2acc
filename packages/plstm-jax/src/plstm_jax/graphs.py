"""From what users call a graph to a topology, whose index arrays the formulas gather with."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import numpy as np

from plstm_config import checks
from plstm_config.checks import check_topology
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
    check_topology(graph, num_nodes, (DagTopology, PaddedGraph))
    return graph if mode is None else graph.with_mode(mode)


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
    if not isinstance(topology.in_degree, jax.core.Tracer):
        checks.check_degrees(topology.in_degree, topology.out_degree, max_edges)
