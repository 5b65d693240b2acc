"""A directed acyclic graph as index arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np

from plstm_config.topology.arrays import IndexArrays
from plstm_config.topology.build import Mode, build, build_given, check_lines, check_mode
from plstm_config.topology.convert import networkx_edges, scipy_edges
from plstm_config.topology.edges import (
    Index,
    as_pairs,
    check_edges,
    check_node_ptr,
    check_num_nodes,
    direct_edges,
    offsets,
)
from plstm_config.topology.line_graph import second_path


@dataclass(frozen=True, eq=False)
class DagTopology(IndexArrays):
    """A directed acyclic graph, or a batch of them, as a pLSTM reads it.

    Edges carry the state; the line graph says which edge hands its state on to which. Build one with `from_edges`
    or one of the other constructors, which choose a canonical order: edges by graph, depth of their tail (longest path
    to it), tail, head; line edges by graph, level of the outgoing edge, outgoing edge, incoming edge. The order in
    which the edges were given only shows in `edge_order`, and in D-mode in what the pruning keeps.

    Whatever is derived from the pairs (slots, degrees, levels, places within a graph) is an attribute of it, too: see
    `IndexArrays`. Instances compare and hash by identity, so that caches can be keyed by them; do not change their
    arrays.

    Attributes:
        num_nodes: N.
        edges: pairs (tail, head) in topological order, int64 [E,2].
        line_edges: pairs (incoming, outgoing) of indices into `edges`, int64 [L,2].
        edge_order: position of each edge in the input, int64 [E].
        mode: "P": every edge is joined to all that follow it; "D": the line graph is a multitree.
        num_input_edges: number of edges that were given; more than E where opposite edges were merged.
        node_ptr: the nodes of graph g run from entry g up to, not including, entry g + 1, int64 [G+1].
        lines_given: whether the line edges were given rather than derived from the mode.

    Raises:
        TypeError: if something is not made of integers.
        ValueError: if shapes, indices, the topological order or the mode do not fit.

    Examples:
        >>> from plstm_config.topology import DagTopology
        >>> graph = DagTopology.from_edges(4, [(0, 1), (0, 2), (1, 3), (2, 3)])
        >>> graph.line_edges.tolist(), graph.levels.tolist()
        ([[0, 2], [1, 3]], [0, 0, 1, 1])
        >>> graph.with_mode("D").line_edges.tolist()  # one path between any two edges
        [[0, 2], [1, 3]]
        >>> DagTopology.batch([graph, graph]).num_nodes
        8

    Source:
        Section 3 of the pLSTM paper.
    """

    num_nodes: int
    edges: Index
    line_edges: Index
    edge_order: Index
    mode: Mode
    num_input_edges: int
    node_ptr: Index
    lines_given: bool = field(default=False)

    def __post_init__(self) -> None:
        """Check that the parts fit each other, and hold copies that nobody else changes."""
        _check(self)
        for name in ("edges", "line_edges", "edge_order", "node_ptr"):
            object.__setattr__(self, name, np.array(getattr(self, name), np.int64, order="C"))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the parts only; what was derived is derived again."""
        return type(self), tuple(getattr(self, part.name) for part in fields(self))

    @classmethod
    def from_edges(
        cls, num_nodes: int, edges: Any, mode: Mode = "P", *, undirected: bool = False, node_ptr: Any = None
    ) -> "DagTopology":
        """Build a topology from edges.

        Args:
            num_nodes: N; nodes without edges are welcome.
            edges: integer pairs (tail, head) [E,2].
            mode: "P" or "D"; in D-mode the order of the edges decides what is pruned (see `prune_to_multitree`).
            undirected: first direct every edge from the lower to the higher node index; (a, b) and (b, a) are one edge,
                which keeps its first position.
            node_ptr: bounds of the graphs among the nodes [G+1] if there are several; no edge joins two of them.

        Returns:
            The topology.

        Raises:
            TypeError: if an argument is not made of integers.
            ValueError: if an index is out of range, or there is a self loop, a repeated edge, or a cycle; the message
                names an edge. Also if the mode is unknown.
        """
        num_nodes, pairs = check_num_nodes(num_nodes), as_pairs("edges", edges)
        check_edges(pairs, num_nodes)
        positions = np.arange(len(pairs))
        directed = pairs
        if undirected:
            directed, positions = direct_edges(pairs)
            check_edges(directed, num_nodes)
        bounds = np.array([0, num_nodes]) if node_ptr is None else check_node_ptr(node_ptr, num_nodes)
        return _derived(num_nodes, directed, positions, mode, len(pairs), bounds)

    @classmethod
    def from_edge_index(
        cls, num_nodes: int, edge_index: Any, mode: Mode = "P", *, undirected: bool = False, node_ptr: Any = None
    ) -> "DagTopology":
        """Build a topology from an edge index.

        Args:
            num_nodes: N.
            edge_index: integers [2,E], tails and heads.
            mode: as in `from_edges`.
            undirected: as in `from_edges`.
            node_ptr: as in `from_edges`.

        Returns:
            The topology.

        Raises:
            TypeError: as in `from_edges`.
            ValueError: if the shape is not [2,E], or as in `from_edges`.
        """
        array = np.asarray(edge_index)
        if array.ndim != 2 or array.shape[0] != 2:
            raise ValueError(f"edge_index: expected [2,E], got {array.shape}")
        return cls.from_edges(num_nodes, array.T, mode, undirected=undirected, node_ptr=node_ptr)

    @classmethod
    def from_line_edges(cls, num_nodes: int, edges: Any, line_edges: Any, mode: Mode = "P") -> "DagTopology":
        """Build a topology from edges and the pairs of them that shall be joined.

        Args:
            num_nodes: N.
            edges: integer pairs (tail, head) [E,2].
            line_edges: integer pairs (incoming, outgoing) of positions in `edges` [L,2].
            mode: "P", or "D", which demands a multitree.

        Returns:
            The topology.

        Raises:
            TypeError: if an argument is not made of integers.
            ValueError: as in `from_edges`; also if a line edge is out of range, repeated, or joins edges that do not
                follow one another, or if there are two paths between two edges in mode "D".
        """
        num_nodes, pairs = check_num_nodes(num_nodes), as_pairs("edges", edges)
        check_edges(pairs, num_nodes)
        node_ptr = np.array([0, num_nodes])
        parts = build_given(num_nodes, pairs, as_pairs("line_edges", line_edges), node_ptr)
        return cls(num_nodes, *parts, mode, len(pairs), node_ptr, True)

    @classmethod
    def from_networkx(cls, graph: Any, mode: Mode = "P") -> "DagTopology":
        """Build a topology from a networkx graph.

        Nodes are numbered as `graph.nodes` lists them, edges as `graph.edges` does. An undirected graph is directed
        from lower to higher node numbers.

        Args:
            graph: `networkx.DiGraph` or `networkx.Graph`.
            mode: as in `from_edges`.

        Returns:
            The topology.

        Raises:
            TypeError: if `graph` is no networkx graph.
            ValueError: as in `from_edges`.
        """
        num_nodes, pairs, undirected = networkx_edges(graph)
        return cls.from_edges(num_nodes, pairs, mode, undirected=undirected)

    @classmethod
    def from_scipy(cls, matrix: Any, mode: Mode = "P", *, undirected: bool = False) -> "DagTopology":
        """Build a topology from a sparse adjacency matrix.

        Args:
            matrix: scipy sparse matrix or array [N,N]; every stored entry (i, j) is an edge from i to j, in the order
                of `matrix.tocoo()`.
            mode: as in `from_edges`.
            undirected: as in `from_edges`; for symmetric matrices.

        Returns:
            The topology.

        Raises:
            TypeError: if `matrix` is not sparse.
            ValueError: if it is not square, or as in `from_edges`.
        """
        num_nodes, pairs = scipy_edges(matrix)
        return cls.from_edges(num_nodes, pairs, mode, undirected=undirected)

    @classmethod
    def batch(cls, topologies: Sequence["DagTopology"]) -> "DagTopology":
        """Put graphs side by side as one graph without connections between them.

        Nodes, edges and line edges of one graph stay together; `schedule` runs over the levels of all graphs at once.
        A batch may be batched again.

        Args:
            topologies: any number, all of one mode.

        Returns:
            The batch. Its input positions continue from graph to graph.

        Raises:
            TypeError: if something else is among them.
            ValueError: if their modes differ, or only some have given line edges.
        """
        return _batch(list(topologies))

    def reverse(self) -> "DagTopology":
        """Turn all edges around.

        The result equals a topology built from the turned edges in the input order, so D-mode prunes anew; given line
        edges are turned around instead. `edge_order` still holds the positions in the input.

        Returns:
            The reversed topology; the same object every time.
        """
        return self._reversed

    def with_mode(self, mode: Mode) -> "DagTopology":
        """The same graph in a given mode.

        Args:
            mode: "P" or "D".

        Returns:
            The topology itself if it has the mode, else one with a line graph of that mode; the same object every time.
            Given line edges stay as they are.

        Raises:
            ValueError: if the mode is unknown, or "D" although given line edges leave two paths between two edges.
        """
        check_mode(mode)
        return self if mode == self.mode else self._other_mode

    @cached_property
    def _reversed(self) -> "DagTopology":
        return _rebuilt(self, self.mode, turn=True)

    @cached_property
    def _other_mode(self) -> "DagTopology":
        return _rebuilt(self, "D" if self.mode == "P" else "P", turn=False)


def _derived(num_nodes: int, edges: Index, positions: Index, mode: Mode, given: int, node_ptr: Index) -> DagTopology:
    check_mode(mode)
    ordered, lines, order = build(num_nodes, edges, mode, node_ptr)
    return DagTopology(num_nodes, ordered, lines, positions[order], mode, given, node_ptr)


def _rebuilt(topology: DagTopology, mode: Mode, *, turn: bool) -> DagTopology:
    """Build again in a mode, possibly with all edges turned around."""
    size, given, node_ptr = topology.num_nodes, topology.num_input_edges, topology.node_ptr
    step = -1 if turn else 1
    if topology.lines_given:
        turned, lines = topology.edges[:, ::step], topology.line_edges[:, ::step]
        edges, lines, order = build_given(size, turned, lines, node_ptr)
        return DagTopology(size, edges, lines, topology.edge_order[order], mode, given, node_ptr, True)
    as_input = np.argsort(topology.edge_order)
    return _derived(size, topology.edges[as_input][:, ::step], topology.edge_order[as_input], mode, given, node_ptr)


def _batch(topologies: list[DagTopology]) -> DagTopology:
    for position, topology in enumerate(topologies):
        if not isinstance(topology, DagTopology):
            raise TypeError(f"topologies[{position}]: expected a DagTopology, got {type(topology).__name__}")
        if topology.mode != topologies[0].mode:
            raise ValueError(f"topologies[{position}].mode: expected {topologies[0].mode!r}, got {topology.mode!r}")
        if topology.lines_given != topologies[0].lines_given:
            raise ValueError(
                f"topologies[{position}].lines_given: expected {topologies[0].lines_given} as for the first, "
                f"got {topology.lines_given}"
            )
    nodes = offsets(np.array([t.num_nodes for t in topologies], np.int64)).tolist()
    edges = offsets(np.array([len(t.edges) for t in topologies], np.int64)).tolist()
    given = offsets(np.array([t.num_input_edges for t in topologies], np.int64)).tolist()
    pairs, positions = np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    return DagTopology(
        num_nodes=nodes[-1],
        edges=np.concatenate([pairs, *[t.edges + n for t, n in zip(topologies, nodes, strict=False)]]),
        line_edges=np.concatenate([pairs, *[t.line_edges + e for t, e in zip(topologies, edges, strict=False)]]),
        edge_order=np.concatenate([positions, *[t.edge_order + e for t, e in zip(topologies, given, strict=False)]]),
        mode=topologies[0].mode if topologies else "P",
        num_input_edges=given[-1],
        node_ptr=np.concatenate([[0], *[t.node_ptr[1:] + n for t, n in zip(topologies, nodes, strict=False)]]),
        lines_given=bool(topologies) and topologies[0].lines_given,
    )


def _check(topology: DagTopology) -> None:
    check_mode(topology.mode)
    size = check_num_nodes(topology.num_nodes)
    edges, lines = as_pairs("edges", topology.edges), as_pairs("line_edges", topology.line_edges)
    check_edges(edges, size)
    check_lines(edges, lines)
    backward = lines[:, 0] >= lines[:, 1]
    if backward.any():
        got = tuple(lines[int(np.argmax(backward))].tolist())
        raise ValueError(
            f"line_edges: expected pairs (earlier, later), since edges are in topological order, got {got}"
        )
    order = np.asarray(topology.edge_order)
    if order.shape != (len(edges),) or not np.array_equal(np.unique(order), np.sort(order)):
        raise ValueError(f"edge_order: expected E={len(edges)} different positions, got shape {order.shape}")
    node_ptr = check_node_ptr(topology.node_ptr, size)
    graph = np.repeat(np.arange(len(node_ptr) - 1), np.diff(node_ptr))[edges]
    if (graph[:, 0] != graph[:, 1]).any() or (np.diff(graph[:, 0]) < 0).any():
        raise ValueError(
            f"edges: expected them graph by graph, and none from one graph of node_ptr to another, "
            f"got graphs {graph.tolist()[:8]}"
        )
    if topology.mode == "D" and topology.lines_given:
        path = second_path(len(edges), lines)
        if path is not None:
            first, second = (tuple(edge) for edge in edges[list(path)].tolist())
            raise ValueError(
                f"line_edges: expected a multitree for mode 'D', got a second path through {first} and {second}"
            )
