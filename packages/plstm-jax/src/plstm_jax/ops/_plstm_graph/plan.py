"""A topology as arrays of static shape, so that one compiled program serves many graphs."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from plstm_config.topology import DagTopology
from plstm_config.topology.indices import check_indices
from plstm_config.topology.schedule import edge_levels

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


_KNOWN: MutableMapping[Any, GraphPlan] = WeakKeyDictionary()


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
    """
    try:
        if topology in _KNOWN:
            return _KNOWN[topology]
    except TypeError:  # cannot be hashed: a tuple of arrays, say
        return _make_plan(topology, num_nodes)
    plan = _make_plan(topology, num_nodes)
    with suppress(TypeError):  # cannot be weakly referenced
        _KNOWN[topology] = plan
    return plan


def _make_plan(topology: Any, num_nodes: int | None) -> GraphPlan:
    size = getattr(topology, "num_nodes", num_nodes) if num_nodes is None else num_nodes
    if size is None:
        raise ValueError("num_nodes: expected a number, since the topology has none")
    if not isinstance(topology, DagTopology):
        check_indices(topology.edges, topology.line_edges, size)
    edges, lines = (np.asarray(indices, np.int64) for indices in (topology.edges, topology.line_edges))
    if isinstance(topology, DagTopology):
        levels, graph = topology.levels, topology.node_graph
    else:
        levels, graph = edge_levels(len(edges), lines), np.zeros(size, np.int64)
    num_graphs = int(graph.max(initial=-1)) + 1
    edge_graph = graph[edges[:, 0]]
    padded = {"N": _bucket(size), "E": _bucket(len(edges)), "L": _bucket(len(lines)), "G": _bucket(num_graphs)}
    arrays: dict[str, Any] = {
        "edges": _fill(edges, padded["E"], padded["N"]),
        "line_edges": _fill(lines, padded["L"], padded["E"]),
        "rows": _rows(levels[lines[:, 1]], padded["L"]),
        "node_graph": _fill(graph, padded["N"], padded["G"]),
        "node_rank": _fill(_rank(graph, num_graphs), padded["N"], 0),
        "edge_rank": _fill(_rank(edge_graph, num_graphs), padded["E"], 0),
    }
    return GraphPlan(
        **arrays,
        num_graphs=padded["G"],
        max_nodes=_bucket(int(np.bincount(graph).max(initial=1))),
        max_edges=_bucket(int(np.bincount(edge_graph).max(initial=1))),
    )


def _rows(levels: np.ndarray, missing: int) -> np.ndarray:
    """Pack the lines of each level into rows of the width that costs least."""
    counts = np.bincount(levels)
    order = np.argsort(levels, kind="stable")
    widths = 2 ** np.arange(1 + int(np.ceil(np.log2(max(1, counts.max(initial=1))))))
    needed = [int(np.ceil(counts / width).sum()) for width in widths]
    best = int(np.argmin([rows * (width + _ROW_COST) for rows, width in zip(needed, widths, strict=True)]))
    width = int(widths[best])
    result = np.full([_bucket(needed[best]), width], missing, np.int64)
    starts = np.cumsum(counts) - counts
    first_row = np.cumsum(np.ceil(counts / width)) - np.ceil(counts / width)
    within = np.arange(len(levels)) - starts[levels[order]]
    rows = first_row[levels[order]].astype(np.int64) + within // width
    result[rows, within % width] = order
    return result.astype(np.int32)


def _bucket(size: int) -> int:
    """The next number of the form 2**k or 3 * 2**k, at least 1."""
    if size <= 2:
        return max(size, 1)
    power = 1 << (size - 1).bit_length()
    return power * 3 // 4 if size <= power * 3 // 4 else power


def _fill(array: np.ndarray, size: int, value: int) -> np.ndarray:
    """Append rows of `value`."""
    result = np.full([size, *array.shape[1:]], value, np.int32)
    result[: len(array)] = array
    return result


def _rank(group: np.ndarray, num_groups: int) -> np.ndarray:
    """Place of each element among those of its group."""
    sizes = np.bincount(group, minlength=num_groups)
    order = np.argsort(group, kind="stable")
    rank = np.empty_like(group)
    rank[order] = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rank


def _pad_axis(name: str, array: Array, size: int) -> Array:
    missing = size - array.shape[1]
    if missing < 0:
        raise ValueError(f"array: expected at most {size} {name}, as many as the plan has, got {array.shape[1]}")
    return jnp.pad(array, [(0, 0), (0, missing)] + [(0, 0)] * (array.ndim - 2)) if missing else jnp.asarray(array)
