"""A topology as arrays of static shape, so that one compiled program serves many graphs."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from plstm_config.topology.arrays import index_arrays

# A row of lines costs about as much as this many further lines in it (a step of a scan on a CPU).
_ROW_COST = 64


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class GraphPlan:
    """What `plstm_graph` needs to know of a graph, padded; a pytree, so it may be an argument of a jitted function.

    Padding is marked by an index one past the end, which nothing reads and where nothing is written: whatever stands
    in padded places of node, edge or line arrays has no influence on the rest.

    Attributes:
        edges: pairs (tail, head) in topological order, int32 [E,2].
        line_edges: pairs (incoming, outgoing) of edges, int32 [L,2].
        rows: line edges in the order in which they are computed, those of one row at once, int32 [R,W].
        node_graph: graph of each node, int32 [N].
        node_rank: place of each node within its graph, int32 [N].
        edge_rank: place of each edge within its graph, int32 [E].
        num_graphs: G, static.
        max_nodes: nodes of the largest graph, static.
        max_edges: edges of the largest graph, static.

    Examples:
        >>> import jax.numpy as jnp
        >>> from plstm_config.topology import DagTopology
        >>> from plstm_jax.ops import plan_graph
        >>> plan = plan_graph(DagTopology.from_edges(5, [(0, 1), (1, 2), (1, 3)]))
        >>> plan.pad_nodes(jnp.ones((2, 5))).shape, plan.pad_edges(jnp.ones((2, 3))).shape
        ((2, 6), (2, 3))
    """

    edges: Int[Array, "E 2"]
    line_edges: Int[Array, "L 2"]
    rows: Int[Array, "R W"]
    node_graph: Int[Array, " N"]
    node_rank: Int[Array, " N"]
    edge_rank: Int[Array, " E"]
    num_graphs: int = field(metadata={"static": True})
    max_nodes: int = field(metadata={"static": True})
    max_edges: int = field(metadata={"static": True})

    @property
    def num_nodes(self) -> int:
        """N, with padding."""
        return int(self.node_graph.shape[0])

    def pad_nodes(self, array: Float[Array, "H N ..."]) -> Float[Array, "H N ..."]:
        """Append zeros on the second axis up to N."""
        return _pad_axis("nodes", array, self.num_nodes)

    def pad_edges(self, array: Float[Array, "H E ..."]) -> Float[Array, "H E ..."]:
        """Append zeros on the second axis up to E."""
        return _pad_axis("edges", array, self.edges.shape[0])

    def pad_line_edges(self, array: Float[Array, "H L ..."]) -> Float[Array, "H L ..."]:
        """Append zeros on the second axis up to L."""
        return _pad_axis("line edges", array, self.line_edges.shape[0])


# by the number of nodes, which a topology need not know
_KNOWN: MutableMapping[Any, dict[int, GraphPlan]] = WeakKeyDictionary()


def plan_graph(topology: Any, num_nodes: int | None = None) -> GraphPlan:
    """Make the plan of a topology; once for each that can be weakly referenced.

    Every size is rounded up to 1, 2, 3, 4, 6, 8, 12, 16, ... so that graphs of similar size share a compiled program.

    Args:
        topology: a `DagTopology`, or anything with `edges` [E,2] in topological order and `line_edges` [L,2].
        num_nodes: N; needed where the topology does not know it.

    Returns:
        The plan, with numpy arrays.

    Raises:
        TypeError: if the indices are no integers.
        ValueError: if the number of nodes is missing, or the indices are no DAG in topological order.

    Examples:
        >>> from plstm_config.topology import DagTopology
        >>> from plstm_jax.ops import plan_graph
        >>> plan = plan_graph(DagTopology.from_edges(5, [(0, 1), (1, 2), (1, 3)]))
        >>> plan.num_nodes, plan.edges.shape
        (6, (3, 2))
    """
    size = getattr(topology, "num_nodes", num_nodes) if num_nodes is None else num_nodes
    if size is None:
        raise ValueError("num_nodes: expected a number, since the topology has none, got None")
    try:
        known = _KNOWN.setdefault(topology, {})
    except TypeError:  # a tuple of arrays, say: nothing to tie the plan to
        known = {}
    if size not in known:
        known[size] = _make_plan(topology, size)
    return known[size]


def _make_plan(topology: Any, size: int) -> GraphPlan:
    graph = index_arrays(topology, size)
    num_graphs = int(graph.node_graph.max(initial=-1)) + 1  # graphs without nodes at the end take no room
    nodes, edges, lines, graphs = map(bucket, (size, len(graph.edges), len(graph.line_edges), num_graphs))
    arrays: dict[str, Any] = {
        "edges": fill(graph.edges, edges, nodes),
        "line_edges": fill(graph.line_edges, lines, edges),
        "rows": _rows(graph.levels[graph.outgoing], lines),
        "node_graph": fill(graph.node_graph, nodes, graphs),
        "node_rank": fill(graph.node_position, nodes, 0),
        "edge_rank": fill(graph.edge_position, edges, 0),
    }
    max_nodes, max_edges = (int(rank.max(initial=0)) + 1 for rank in (graph.node_position, graph.edge_position))
    return GraphPlan(**arrays, num_graphs=graphs, max_nodes=bucket(max_nodes), max_edges=bucket(max_edges))


def _rows(levels: np.ndarray, missing: int) -> np.ndarray:
    """Pack the lines of each level into rows of the width that costs least."""
    counts = np.bincount(levels)
    order = np.argsort(levels, kind="stable")
    widths = 2 ** np.arange(1 + int(np.ceil(np.log2(max(1, counts.max(initial=1))))))
    needed = [int(np.ceil(counts / width).sum()) for width in widths]
    best = int(np.argmin([rows * (width + _ROW_COST) for rows, width in zip(needed, widths, strict=True)]))
    width = int(widths[best])
    result = np.full([bucket(needed[best]), width], missing, np.int64)
    starts = np.cumsum(counts) - counts
    first_row = np.cumsum(np.ceil(counts / width)) - np.ceil(counts / width)
    within = np.arange(len(levels)) - starts[levels[order]]
    rows = first_row[levels[order]].astype(np.int64) + within // width
    result[rows, within % width] = order
    return result.astype(np.int32)


def bucket(size: int) -> int:
    """The next number of the form 2**k or 3 * 2**k, at least 1."""
    if size <= 2:
        return max(size, 1)
    power = 1 << (size - 1).bit_length()
    return power * 3 // 4 if size <= power * 3 // 4 else power


def fill(array: np.ndarray, size: int, value: int) -> Any:
    """Append rows of `value`; an array that JAX takes as one of its own."""
    result = np.full([size, *array.shape[1:]], value, np.int32)
    result[: len(array)] = array
    return result


def _pad_axis(name: str, array: Array, size: int) -> Array:
    missing = size - array.shape[1]
    if missing < 0:
        raise ValueError(f"array: expected at most {size} {name}, as many as the plan has, got {array.shape[1]}")
    return jnp.pad(array, [(0, 0), (0, missing)] + [(0, 0)] * (array.ndim - 2)) if missing else jnp.asarray(array)
