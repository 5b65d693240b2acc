"""Checks of index arrays of unknown origin, which an op takes in place of a `DagTopology`."""

from typing import Any

import numpy as np

from plstm_config.topology.edges import as_pairs


def check_indices(edges: Any, line_edges: Any, num_nodes: int) -> None:
    """Check what `plstm_graph` relies on; unlike in a `DagTopology`, an edge may occur twice.

    Args:
        edges: integer pairs (tail, head) [E,2].
        line_edges: integer pairs (incoming, outgoing) of indices into `edges` [L,2].
        num_nodes: N.

    Raises:
        TypeError: if something is not made of integers.
        ValueError: if an index is out of range, an edge ends where it starts, edges do not meet, or they are not in
            topological order.
    """
    edges, line_edges = as_pairs("topology.edges", edges), as_pairs("topology.line_edges", line_edges)
    wrong = np.flatnonzero(((edges < 0) | (edges >= num_nodes)).any(1))
    if wrong.size:
        found = tuple(edges[wrong[0]].tolist())
        raise ValueError(f"topology.edges: expected nodes from 0 to N-1={num_nodes - 1}, got {found}")
    wrong = np.flatnonzero(edges[:, 0] == edges[:, 1])
    if wrong.size:
        found = tuple(edges[wrong[0]].tolist())
        raise ValueError(f"topology.edges: expected no edge from a node to itself, got {found}")
    earlier, later = line_edges.T
    wrong = np.flatnonzero((earlier < 0) | (later <= earlier) | (later >= len(edges)))
    if wrong.size:
        found = tuple(line_edges[wrong[0]].tolist())
        raise ValueError(
            f"topology.line_edges: expected pairs (earlier, later) of the {len(edges)} edges in topological order, "
            f"got {found}"
        )
    wrong = np.flatnonzero(edges[earlier, 1] != edges[later, 0])
    if wrong.size:
        first, second = edges[line_edges[wrong[0]]].tolist()
        raise ValueError(f"topology.line_edges: expected edges that meet in a node, got {first} and {second}")
