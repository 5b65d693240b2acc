"""Edge lists: reading, checking, directing and ordering them."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Index: TypeAlias = NDArray[np.int64]
LARGEST_INDEX = 2**63 - 1
_SHOWN_CYCLE = 8


class NodeOrder(NamedTuple):
    """Nodes in topological order.

    Attributes:
        nodes: the nodes, first in first out from the nodes without incoming edges [N].
        depth: length of the longest path that ends in each node, by node [N].
    """

    nodes: Index
    depth: Index


def check_num_nodes(num_nodes: Any) -> int:
    """Check a number of nodes.

    Args:
        num_nodes: an integer of any kind.

    Returns:
        It as a Python integer.

    Raises:
        TypeError: if it is no integer.
        ValueError: if it is negative, or beyond what an index can be.
    """
    if isinstance(num_nodes, bool) or not isinstance(num_nodes, int | np.integer):
        raise TypeError(f"num_nodes: expected an integer, got {type(num_nodes).__name__}")
    if num_nodes < 0:
        raise ValueError(f"num_nodes: expected a number >= 0, got {num_nodes}")
    if num_nodes > LARGEST_INDEX:
        raise ValueError(f"num_nodes: expected at most {LARGEST_INDEX}, got an integer beyond")
    return int(num_nodes)


def as_pairs(name: str, pairs: Any) -> Index:
    """Read pairs of indices.

    Args:
        name: name of the argument, for messages.
        pairs: integer array or sequence of pairs [E,2]; an empty sequence has no pairs.

    Returns:
        The pairs as int64 [E,2].

    Raises:
        TypeError: if they are not integers.
        ValueError: if their shape is not [E,2].
    """
    if not hasattr(pairs, "shape"):
        if not isinstance(pairs, Sequence) or isinstance(pairs, str | bytes):
            raise TypeError(f"{name}: expected an array or a sequence of pairs, got {type(pairs).__name__}")
        if not len(pairs):
            return np.zeros((0, 2), np.int64)
    try:
        array = np.asarray(pairs)
    except ValueError as error:
        raise ValueError(f"{name}: expected pairs [E,2], got a ragged sequence") from error
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"{name}: expected pairs [E,2], got {array.shape}")
    return array.astype(np.int64)


def check_node_ptr(node_ptr: Any, num_nodes: int) -> Index:
    """Check the bounds of the graphs of a batch.

    Args:
        node_ptr: integers [G+1].
        num_nodes: N.

    Returns:
        The bounds as int64.

    Raises:
        TypeError: if they are not integers.
        ValueError: if they do not rise from 0 to N.
    """
    bounds = np.asarray(node_ptr)
    if bounds.size and bounds.dtype.kind not in "iu":
        raise TypeError(f"node_ptr: expected integers, got {bounds.dtype}")
    if bounds.ndim != 1 or not len(bounds) or bounds[0] or bounds[-1] != num_nodes or (np.diff(bounds) < 0).any():
        raise ValueError(f"node_ptr: expected bounds that rise from 0 to N={num_nodes}, got {bounds}")
    return bounds.astype(np.int64)


def check_edges(edges: Index, num_nodes: int) -> None:
    """Check that edges join different existing nodes, and no two nodes twice.

    Args:
        edges: pairs (tail, head) [E,2].
        num_nodes: N.

    Raises:
        ValueError: naming the first edge with an index out of range, the first self loop, or the first edge that
            repeats an earlier one, and its position.
    """
    wrong = (edges < 0) | (edges >= num_nodes)
    outside = wrong[:, 0] | wrong[:, 1]
    if outside.any():
        expected = f"nodes from 0 to N-1={num_nodes - 1}" if num_nodes else "no edges, since N=0"
        raise ValueError(f"edges: expected {expected}, got {_describe(edges, outside)}")
    loops = edges[:, 0] == edges[:, 1]
    if loops.any():
        raise ValueError(
            f"edges: expected no self loop, got {_describe(edges, loops)}; "
            "drop self loops, since a node reads its own input by its direct gate"
        )
    repeated = repeats(edges[:, 0] * max(num_nodes, 1) + edges[:, 1])
    if repeated.any():
        raise ValueError(f"edges: expected every edge once, got again {_describe(edges, repeated)}")


def repeats(keys: Index) -> NDArray[np.bool_]:
    """Tell which entries occurred before.

    Args:
        keys: integers [E].

    Returns:
        Whether the same integer stands at an earlier position [E].
    """
    repeated = np.ones(len(keys), bool)
    repeated[np.unique(keys, return_index=True)[1]] = False
    return repeated


def direct_edges(edges: Any) -> tuple[Index, Index]:
    """Make a DAG of an undirected graph: every edge points from the lower to the higher node index.

    An edge that is listed both ways, as (a, b) and as (b, a), is one edge and keeps its first position. An edge listed
    twice the same way stays twice, so that building a topology refuses it.

    Args:
        edges: integer pairs [E,2].

    Returns:
        The directed edges [E',2] in the order of the input, and the input position of each [E'].

    Raises:
        TypeError: if the edges are not integers.
        ValueError: if their shape is not [E,2].

    Examples:
        >>> from plstm_config.topology import direct_edges
        >>> edges, positions = direct_edges([(1, 0), (0, 1), (2, 1)])
        >>> edges.tolist(), positions.tolist()
        ([[0, 1], [1, 2]], [0, 2])
    """
    pairs = as_pairs("edges", edges)
    directed = np.sort(pairs, axis=1)
    low, width = (int(directed.min()), int(np.ptp(directed)) + 1) if len(pairs) else (0, 1)
    keys = (directed[:, 0] - low) * width + directed[:, 1] - low
    upwards = pairs[:, 0] <= pairs[:, 1]
    first = np.ones(len(pairs), bool)
    for way in (upwards, ~upwards):  # a pair of opposite edges: drop the one that comes later
        here, there = np.flatnonzero(way), np.flatnonzero(~way)
        other = np.full(len(here), len(pairs))
        values, positions = np.unique(keys[there], return_index=True)
        if len(values):
            found = np.minimum(np.searchsorted(values, keys[here]), len(values) - 1)
            other = np.where(values[found] == keys[here], there[positions[found]], len(pairs))
        first[here[other < here]] = False
    kept = np.flatnonzero(first)
    return directed[kept], kept


def topological_nodes(num_nodes: int, edges: Index) -> NodeOrder:
    """Order nodes so that every edge points forward.

    First in, first out, from the nodes without incoming edges in the order of their indices, along edges in the order
    given. Listing the outgoing edges of each node in this order gives the edges in the order in which networkx sorts
    the nodes of the line graph.

    Args:
        num_nodes: N.
        edges: pairs (tail, head) [E,2], checked.

    Returns:
        The order, and the depth of each node.

    Raises:
        ValueError: if there is a cycle; the message names one of its edges and the cycle.
    """
    tails, heads = edges[:, 0], edges[:, 1]
    targets = heads[np.argsort(tails, kind="stable")].tolist()
    bounds = offsets(np.bincount(tails, minlength=num_nodes)).tolist()
    missing = np.bincount(heads, minlength=num_nodes)
    queue = np.flatnonzero(missing == 0).tolist()
    remaining, depth = missing.tolist(), [0] * num_nodes
    for node in queue:  # grows while it is read
        for head in targets[bounds[node] : bounds[node + 1]]:
            remaining[head] -= 1
            if not remaining[head]:
                depth[head] = depth[node] + 1
                queue.append(head)
    if len(queue) < num_nodes:
        raise _cycle_error(edges, np.array(remaining))
    return NodeOrder(np.array(queue, np.int64), np.array(depth, np.int64))


def offsets(sizes: NDArray[Any]) -> Index:
    """Bounds of consecutive groups.

    Args:
        sizes: sizes of the groups [G].

    Returns:
        Group g covers the positions from entry g up to, not including, entry g + 1 [G+1].
    """
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def ranks(groups: Index, num_groups: int) -> Index:
    """Number the members of each group in the order in which they come.

    Args:
        groups: group of each member [E].
        num_groups: number of groups.

    Returns:
        How many earlier members its group has, for each member [E].
    """
    order = np.argsort(groups, kind="stable")
    result = np.empty(len(groups), np.int64)
    starts = offsets(np.bincount(groups, minlength=num_groups))
    result[order] = np.arange(len(groups)) - starts[groups[order]]
    return result


def _describe(edges: Index, chosen: NDArray[np.bool_]) -> str:
    position = int(np.argmax(chosen))
    tail, head = edges[position].tolist()
    return f"({tail}, {head}) at position {position}"


def _cycle_error(edges: Index, remaining: Index) -> ValueError:
    """Name a cycle, and the remedy where it is an edge that is listed both ways."""
    inside = np.flatnonzero((remaining[edges] > 0).all(axis=1))
    span = len(remaining)
    both_ways = np.isin(edges[inside, 0] * span + edges[inside, 1], edges[inside, 1] * span + edges[inside, 0])
    if both_ways.any():
        position = int(inside[both_ways.argmax()])
        tail, head = edges[position].tolist()
        cycle, remedy = [tail, head, tail], "; of an undirected graph, say undirected=True where its topology is made"
    else:
        (cycle, position), remedy = _find_cycle(edges, inside), ""
    shown = cycle if len(cycle) <= _SHOWN_CYCLE else [*cycle[: _SHOWN_CYCLE - 1], "...", cycle[-1]]
    return ValueError(
        f"edges: expected no cycle, got ({cycle[0]}, {cycle[1]}) at position {position} "
        f"in the cycle {' -> '.join(map(str, shown))}{remedy}"
    )


def _find_cycle(edges: Index, inside: Index) -> tuple[list[int], int]:
    """Walk backwards among the nodes that never became free; each has a predecessor among them, so one must repeat."""
    entering = dict(zip(edges[inside, 1].tolist(), inside.tolist(), strict=True))
    node, path, seen = int(edges[inside[0], 1]), [], set()
    while node not in seen:
        seen.add(node)
        path.append(node)
        node = int(edges[entering[node], 0])
    cycle = [*path[path.index(node) :], node][::-1]
    return cycle, entering[cycle[1]]
