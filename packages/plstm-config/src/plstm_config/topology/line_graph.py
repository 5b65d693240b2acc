"""The line graph: which edge hands its state to which, all of it (P-mode) or pruned to a multitree (D-mode)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from plstm_config.topology.edges import (
    Index,
    NodeOrder,
    as_pairs,
    check_edges,
    check_num_nodes,
    offsets,
    ranks,
    topological_nodes,
)


def line_graph(num_nodes: int, edges: Any) -> Index:
    """Pairs of edges that follow one another: (a, b) and (b, c).

    Args:
        num_nodes: N.
        edges: integer pairs (tail, head) [E,2] of a DAG.

    Returns:
        Pairs (incoming, outgoing) of positions in `edges` [L,2], sorted.

    Raises:
        TypeError: if an argument is not made of integers.
        ValueError: if an index is out of range, or there is a self loop or a repeated edge.

    Examples:
        >>> from plstm_config.topology import line_graph
        >>> line_graph(4, [(0, 1), (1, 2), (1, 3)]).tolist()
        [[0, 1], [0, 2]]
    """
    num_nodes, pairs = check_num_nodes(num_nodes), as_pairs("edges", edges)
    check_edges(pairs, num_nodes)
    return _sorted(follow(num_nodes, pairs, np.ones(len(pairs), bool)))


def prune_to_multitree(num_nodes: int, edges: Any) -> Index:
    """Pairs of edges that D-mode keeps: between any two edges at most one path is left.

    Edges are visited in the topological order of `topological_nodes`. Each is joined to its predecessors in this order,
    leaving out any whose ancestors meet the ancestors it has so far.

    All outgoing edges of a node have the same predecessors and so keep the same ones. Two edges share an ancestor if
    and only if they share one without ancestors of its own, so sets of those first edges, one for each node, decide.

    Args:
        num_nodes: N.
        edges: integer pairs (tail, head) [E,2] of a DAG; their order counts.

    Returns:
        Pairs (incoming, outgoing) of positions in `edges` [L,2], sorted.

    Raises:
        TypeError: if an argument is not made of integers.
        ValueError: if an index is out of range, or there is a self loop, a repeated edge, or a cycle.

    Examples:
        >>> from plstm_config.topology import prune_to_multitree
        >>> diamond_with_tail = [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)]
        >>> prune_to_multitree(5, diamond_with_tail).tolist()
        [[0, 2], [1, 3], [2, 4], [3, 4]]

    Source:
        Section on D-mode of the pLSTM paper; the order is this project's definition.
    """
    num_nodes, pairs = check_num_nodes(num_nodes), as_pairs("edges", edges)
    check_edges(pairs, num_nodes)
    order = topological_nodes(num_nodes, pairs)
    kept = kept_by_pruning(num_nodes, pairs, order, np.zeros(num_nodes, np.int64))
    return _sorted(follow(num_nodes, pairs, kept))


def is_multitree(num_edges: int, line_edges: Any) -> bool:
    """Whether there is at most one path between any two edges.

    Args:
        num_edges: E.
        line_edges: integer pairs (earlier, later) of edges in topological order [L,2].

    Returns:
        Whether the line graph is a multitree.

    Raises:
        TypeError: if the pairs are not integers.
        ValueError: if they are not pairs of increasing indices below E.

    Examples:
        >>> from plstm_config.topology import is_multitree
        >>> is_multitree(4, [(0, 1), (0, 2), (1, 3), (2, 3)])
        False
    """
    pairs = as_pairs("line_edges", line_edges)
    wrong = ((pairs < 0) | (pairs >= num_edges)).any(axis=1) | (pairs[:, 0] >= pairs[:, 1])
    if wrong.any():
        got = tuple(pairs[int(np.argmax(wrong))].tolist())
        raise ValueError(f"line_edges: expected pairs (earlier, later) of {num_edges} edges, got {got}")
    return second_path(num_edges, pairs) is None


def second_path(num_edges: int, line_edges: Index) -> tuple[int, int] | None:
    """Find a line edge that makes a second path between two edges.

    Args:
        num_edges: E.
        line_edges: pairs (earlier, later) [L,2], checked.

    Returns:
        The pair, or None if the line graph is a multitree.
    """
    pairs = line_edges[np.lexsort((line_edges[:, 0], line_edges[:, 1]))]
    sources = pairs[:, 0].tolist()
    bounds = offsets(np.bincount(pairs[:, 1], minlength=num_edges)).tolist()
    uses = np.bincount(pairs[:, 0], minlength=num_edges).tolist()
    first_edges: list[int] = [0] * num_edges  # bit sets
    for edge in range(num_edges):
        met = 0
        for earlier in sources[bounds[edge] : bounds[edge + 1]]:
            if first_edges[earlier] & met:
                return earlier, edge
            met |= first_edges[earlier]
            uses[earlier] -= 1
            if not uses[earlier]:
                first_edges[earlier] = 0
        if uses[edge]:
            first_edges[edge] = met or 1 << edge
    return None


def follow(num_nodes: int, edges: Index, kept: NDArray[np.bool_]) -> Index:
    """Join every kept edge to all outgoing edges of its head.

    Args:
        num_nodes: N.
        edges: pairs (tail, head) [E,2].
        kept: which edges hand on their state [E].

    Returns:
        Pairs (incoming, outgoing) of positions in `edges`, sorted by outgoing, then incoming edge [L,2].
    """
    passing = np.flatnonzero(kept)
    heads = edges[passing, 1]
    incoming = passing[np.argsort(heads, kind="stable")]
    in_degree = np.bincount(heads, minlength=num_nodes)
    tails = edges[:, 0]
    counts = in_degree[tails]
    shift = offsets(in_degree)[tails] - offsets(counts)[:-1]
    lines = np.empty((int(counts.sum()), 2), np.int64)
    lines[:, 0] = incoming[np.arange(len(lines)) + np.repeat(shift, counts)]
    lines[:, 1] = np.repeat(np.arange(len(edges)), counts)
    return lines


def kept_by_pruning(num_nodes: int, edges: Index, order: NodeOrder, node_graph: Index) -> NDArray[np.bool_]:
    """Which edges hand on their state in D-mode: see `prune_to_multitree`.

    Args:
        num_nodes: N.
        edges: pairs (tail, head) [E,2], checked; their order counts.
        order: the order of the nodes.
        node_graph: graph of each node [N]; the sets of first edges are numbered within a graph.

    Returns:
        One flag per edge [E]; of no meaning where the head has no outgoing edges.
    """
    tails = edges[:, 0]
    position = np.empty(num_nodes, np.int64)
    position[order.nodes] = np.arange(num_nodes)
    is_source = order.depth == 0
    first = is_source[tails]
    bits = np.zeros(len(edges), np.int64)
    bits[first] = ranks(node_graph[tails[first]], int(node_graph[-1]) + 1 if num_nodes else 0)
    entering = np.lexsort((position[tails], edges[:, 1]))
    bounds = offsets(np.bincount(edges[:, 1], minlength=num_nodes)).tolist()
    uses = np.bincount(tails, minlength=num_nodes).tolist()
    incoming = list(zip(entering.tolist(), tails[entering].tolist(), first[entering].tolist(), strict=True))
    bit, first_edges, kept = bits.tolist(), [0] * num_nodes, [False] * len(edges)
    for node in order.nodes.tolist():
        met = 0
        for edge, tail, is_first in incoming[bounds[node] : bounds[node + 1]]:
            found = 1 << bit[edge] if is_first else first_edges[tail]
            if not found & met:
                kept[edge] = True
                met |= found
            uses[tail] -= 1
            if not uses[tail]:
                first_edges[tail] = 0  # no edge asks again: give the memory back
        if uses[node]:
            first_edges[node] = met
    return np.array(kept, bool)


def _sorted(lines: Index) -> Index:
    return lines[np.lexsort((lines[:, 1], lines[:, 0]))]
