"""A graph as arrays of static shape, so that one compiled layer or model serves many graphs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from plstm_config.topology import DagTopology, Mode
from plstm_jax.ops import GraphPlan, plan_graph
from plstm_jax.ops._plstm_graph.plan import bucket, fill


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class GraphView:
    """The edges of a graph in one direction and one mode, padded.

    Attributes:
        plan: what the op needs.
        in_slot: rank of each edge among those that end in its head [E].
        out_slot: rank of each edge among those that start in its tail [E].
        edge_order: position of each edge in the input, one past its end for padding [E].
    """

    plan: GraphPlan
    in_slot: Int[Array, " E"]
    out_slot: Int[Array, " E"]
    edge_order: Int[Array, " E"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class PaddedGraph:
    """A graph in all directions and modes; a pytree, so it may be an argument of a jitted function.

    Made by `pad_graph`. Padding is marked by an index one past the end, which nothing reads and where nothing is
    written.

    Attributes:
        views: the edges by mode, "P" and "D", and those of the reversed graph, "P reversed" and "D reversed".
        node_graph: graph of each node [N].
        first_node: first node of this graph [N].
        degrees: number of edges into and out of each node [N], by "in" and "out".
        graph_sizes: number of nodes of each graph [G].
        num_input_edges: number of edges that were given, with padding; more than E where opposite ones were merged.
        mode: the mode that is read.
        reversed: whether edges are read backwards.
    """

    views: dict[str, GraphView]
    node_graph: Int[Array, " N"]
    first_node: Int[Array, " N"]
    degrees: dict[str, Int[Array, " N"]]
    graph_sizes: Int[Array, " G"]
    num_input_edges: int = field(metadata={"static": True})
    mode: Mode = field(metadata={"static": True})
    reversed: bool = field(metadata={"static": True})

    def with_mode(self, mode: Mode) -> PaddedGraph:
        """The same in one of the modes."""
        return replace(self, mode=mode)

    def reverse(self) -> PaddedGraph:
        """The same with all edges turned around."""
        return replace(self, reversed=not self.reversed)

    def pad_nodes(self, array: Float[Array, "N ..."]) -> Float[Array, "N ..."]:
        """Append rows of zeros for the nodes of the padding."""
        return _append("nodes", array, self.num_nodes)

    def pad_edges(self, array: Float[Array, "E ..."]) -> Float[Array, "E ..."]:
        """Append rows of zeros for the edges of the padding."""
        return _append("edges", array, self.num_input_edges)

    @property
    def _view(self) -> GraphView:
        return self.views[_key(self.mode, self.reversed)]

    @property
    def plan(self) -> GraphPlan:
        """What the op needs."""
        return self._view.plan

    @property
    def edges(self) -> Int[Array, "E 2"]:
        """Pairs of tail and head."""
        return self.plan.edges

    @property
    def line_edges(self) -> Int[Array, "L 2"]:
        """Pairs of incoming and outgoing edge."""
        return self.plan.line_edges

    @property
    def in_slot(self) -> Int[Array, " E"]:
        """Rank of each edge among those that end in its head."""
        return self._view.in_slot

    @property
    def out_slot(self) -> Int[Array, " E"]:
        """Rank of each edge among those that start in its tail."""
        return self._view.out_slot

    @property
    def edge_order(self) -> Int[Array, " E"]:
        """Position of each edge in the input."""
        return self._view.edge_order

    @property
    def in_degree(self) -> Int[Array, " N"]:
        """Number of edges that end in each node."""
        return self.degrees["out" if self.reversed else "in"]

    @property
    def out_degree(self) -> Int[Array, " N"]:
        """Number of edges that start in each node."""
        return self.degrees["in" if self.reversed else "out"]

    @property
    def num_nodes(self) -> int:
        """N, with padding."""
        return int(self.node_graph.shape[0])

    @property
    def num_graphs(self) -> int:
        """G, with padding."""
        return int(self.graph_sizes.shape[0])


def pad_graph(topology: DagTopology) -> PaddedGraph:
    """Bring a topology to round sizes.

    Graphs of similar sizes get arrays of equal shapes, so that a function that is jitted once, with the graph as an
    argument, is compiled once for all of them. Node and edge features are padded by the result's `pad_nodes` and
    `pad_edges`; outputs have rows for the padding, too, behind the others.

    Args:
        topology: of any mode.

    Returns:
        The graph, in the mode of the topology, with numpy arrays.

    Examples:
        >>> import jax, jax.numpy as jnp, plstm_config, plstm_jax
        >>> from plstm_config.topology import DagTopology
        >>> config = plstm_config.pLSTMGraphLayerConfig(input_dim=8, num_heads=2, max_edges=2)
        >>> params, run = plstm_jax.init(config, jax.random.key(0)), jax.jit(plstm_jax.apply, static_argnums=0)
        >>> graph = plstm_jax.pad_graph(DagTopology.from_edges(5, [(0, 1), (1, 2), (1, 3)]))
        >>> run(config, params, graph.pad_nodes(jnp.ones((5, 8))), graph=graph).shape  # 5 nodes and padding
        (6, 8)
    """
    rows = bucket(topology.num_input_edges)
    views = {
        _key(mode, backwards): _view(turned.with_mode(mode), rows)
        for backwards, turned in ((False, topology), (True, topology.reverse()))
        for mode in ("P", "D")
    }
    nodes, graphs = views["P"].plan.num_nodes, bucket(topology.num_graphs)
    return PaddedGraph(
        views=views,
        node_graph=fill(topology.node_graph, nodes, graphs),
        first_node=fill(topology.first_node, nodes, nodes),
        degrees={"in": fill(topology.in_degree, nodes, 0), "out": fill(topology.out_degree, nodes, 0)},
        graph_sizes=fill(topology.graph_sizes, graphs, 0),
        num_input_edges=rows,
        mode=topology.mode,
        reversed=False,
    )


def _view(topology: DagTopology, rows: int) -> GraphView:
    plan = plan_graph(topology)
    size = plan.edges.shape[0]
    return GraphView(
        plan=plan,
        in_slot=fill(topology.in_slot, size, 0),
        out_slot=fill(topology.out_slot, size, 0),
        edge_order=fill(topology.edge_order, size, rows),
    )


def _key(mode: str, backwards: bool) -> str:
    return f"{mode} reversed" if backwards else mode


def _append(name: str, array: Array, size: int) -> Array:
    if array.shape[0] > size:
        raise ValueError(f"array: expected at most {size} {name}, as many as the graph has, got {array.shape[0]}")
    return jnp.pad(array, [(0, size - array.shape[0]), *[(0, 0)] * (array.ndim - 1)])
