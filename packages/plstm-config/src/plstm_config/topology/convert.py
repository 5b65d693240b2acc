"""Edges of the graph types of other libraries, which are asked for what they hold and never imported."""

from typing import Any

import numpy as np

from plstm_config.topology.edges import Index


def networkx_edges(graph: Any) -> tuple[int, Index, bool]:
    """Read a networkx graph.

    Args:
        graph: `networkx.DiGraph` or `networkx.Graph`.

    Returns:
        The number of nodes, the pairs of node positions [E,2], and whether they are undirected.

    Raises:
        TypeError: if it is no networkx graph.
        ValueError: if it may hold several edges between two nodes.
    """
    if not all(hasattr(graph, name) for name in ("nodes", "edges", "is_directed", "is_multigraph")):
        raise TypeError(f"graph: expected a networkx graph, got {type(graph).__name__}")
    if graph.is_multigraph():
        raise ValueError(f"graph: expected a graph without multiple edges, got {type(graph).__name__}")
    number = {node: position for position, node in enumerate(graph.nodes)}
    pairs = [(number[tail], number[head]) for tail, head in graph.edges]
    return len(number), np.array(pairs, np.int64).reshape(-1, 2), not graph.is_directed()


def scipy_edges(matrix: Any) -> tuple[int, Index]:
    """Read a scipy sparse matrix.

    Args:
        matrix: scipy sparse matrix or array [N,N].

    Returns:
        The number of nodes, and the pairs (row, column) of its entries [E,2].

    Raises:
        TypeError: if it is not sparse.
        ValueError: if it is not square.
    """
    if not hasattr(matrix, "tocoo"):
        raise TypeError(f"matrix: expected a scipy sparse matrix, got {type(matrix).__name__}")
    if len(matrix.shape) != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"matrix: expected [N,N], got {tuple(matrix.shape)}")
    entries = matrix.tocoo()
    return int(matrix.shape[0]), np.stack([entries.row, entries.col], axis=1).astype(np.int64)
