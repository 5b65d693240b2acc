"""Parts of a topology, put into their canonical order."""

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from plstm_config.topology.edges import Index, offsets, repeats, topological_nodes
from plstm_config.topology.line_graph import follow, kept_by_pruning
from plstm_config.topology.schedule import edge_levels

Mode: TypeAlias = Literal["P", "D"]


class Parts(NamedTuple):
    """What a topology is made of: see the fields of `DagTopology`."""

    edges: Index
    line_edges: Index
    edge_order: Index


def build(num_nodes: int, edges: Index, mode: Mode, node_ptr: Index) -> Parts:
    """Order edges and derive their line graph.

    Args:
        num_nodes: N.
        edges: pairs (tail, head) [E,2] in input order, checked.
        mode: "P" or "D".
        node_ptr: bounds of the graphs among the nodes [G+1].

    Returns:
        The parts.

    Raises:
        ValueError: if there is a cycle.
    """
    order = topological_nodes(num_nodes, edges)
    graph = np.repeat(np.arange(len(node_ptr) - 1), np.diff(node_ptr))
    sorting = canonical_order(edges, order.depth, graph)
    kept = np.ones(len(edges), bool) if mode == "P" else kept_by_pruning(num_nodes, edges, order, graph)
    ordered = edges[sorting]
    lines = follow(num_nodes, ordered, kept[sorting])
    return Parts(ordered, sort_lines(lines, ordered, graph), sorting)


def build_given(num_nodes: int, edges: Index, line_edges: Index, node_ptr: Index) -> Parts:
    """Order edges whose line graph is given.

    Args:
        num_nodes: N.
        edges: pairs (tail, head) [E,2] in input order, checked.
        line_edges: pairs (incoming, outgoing) of positions in `edges` [L,2].
        node_ptr: bounds of the graphs among the nodes [G+1].

    Returns:
        The parts.

    Raises:
        ValueError: if there is a cycle, or a line edge is out of range, repeated, or joins edges that do not follow one
            another.
    """
    check_lines(edges, line_edges)
    repeated = repeats(line_edges[:, 0] * max(len(edges), 1) + line_edges[:, 1])
    if repeated.any():
        raise ValueError(f"line_edges: expected every pair once, got again {_first(line_edges, repeated)}")
    order = topological_nodes(num_nodes, edges)
    graph = np.repeat(np.arange(len(node_ptr) - 1), np.diff(node_ptr))
    sorting = canonical_order(edges, order.depth, graph)
    place = np.empty(len(edges), np.int64)
    place[sorting] = np.arange(len(edges))
    ordered, lines = edges[sorting], place[line_edges]
    lines = lines[np.lexsort((lines[:, 0], lines[:, 1]))]
    return Parts(ordered, sort_lines(lines, ordered, graph), sorting)


def canonical_order(edges: Index, depth: Index, graph: Index) -> Index:
    """Sort edges by graph, depth of the tail, tail, head; their input order has no influence.

    Args:
        edges: pairs (tail, head) [E,2].
        depth: length of the longest path to each node [N].
        graph: graph of each node [N].

    Returns:
        Positions in `edges`, sorted [E].
    """
    tails = edges[:, 0]
    return np.lexsort((edges[:, 1], tails, depth[tails], graph[tails]))


def sort_lines(lines: Index, edges: Index, graph: Index) -> Index:
    """Sort line edges by graph, level of the outgoing edge, outgoing edge, incoming edge.

    Args:
        lines: pairs (incoming, outgoing), sorted by outgoing, then incoming edge [L,2].
        edges: pairs (tail, head) in canonical order [E,2].
        graph: graph of each node [N].

    Returns:
        The pairs in their order [L,2].
    """
    levels = edge_levels(len(edges), lines)
    groups = (graph[edges[:, 0]] * (len(edges) + 1) + levels)[lines[:, 1]]
    in_order = bool((np.diff(groups) >= 0).all())  # always in P-mode
    return lines if in_order else lines[np.argsort(groups, kind="stable")]


def check_lines(edges: Index, lines: Index) -> None:
    """Check that line edges join edges that follow one another.

    Args:
        edges: pairs (tail, head) [E,2].
        lines: pairs (incoming, outgoing) of positions in `edges` [L,2].

    Raises:
        ValueError: naming the first wrong line edge.
    """
    size = len(edges)
    wrong = (lines < 0) | (lines >= size)
    outside = wrong[:, 0] | wrong[:, 1]
    if outside.any():
        expected = f"indices of edges from 0 to E-1={size - 1}" if size else "none, since there are no edges"
        raise ValueError(f"line_edges: expected {expected}, got {_first(lines, outside)}")
    apart = edges[lines[:, 0], 1] != edges[lines[:, 1], 0]
    if apart.any():
        first, second = (tuple(edge) for edge in edges[lines[int(np.argmax(apart))]].tolist())
        raise ValueError(
            f"line_edges: expected pairs of edges (a, b), (b, c), got {_first(lines, apart)}, which joins "
            f"{first} and {second}"
        )


def check_mode(mode: Any) -> None:
    """Check a mode.

    Args:
        mode: anything.

    Raises:
        ValueError: unless it is "P" or "D".
    """
    if mode not in ("P", "D"):
        raise ValueError(f"mode: expected 'P' or 'D', got {mode!r}")


def groups(members: Index, num_groups: int) -> Index:
    """Bounds of groups whose members stand in order.

    Args:
        members: group of each member, not decreasing [M].
        num_groups: number of groups.

    Returns:
        The bounds [G+1].
    """
    return offsets(np.bincount(members, minlength=num_groups))


def _first(pairs: Index, chosen: NDArray[np.bool_]) -> str:
    position = int(np.argmax(chosen))
    return f"{tuple(pairs[position].tolist())} at position {position}"
