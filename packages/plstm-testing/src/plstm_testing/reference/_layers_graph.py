"""The pLSTM layers on directed acyclic graphs: gates from nodes, or from nodes and edges."""

from typing import Any

import numpy as np

from plstm_config import pLSTMGraphEdgeLayerConfig, pLSTMGraphLayerConfig
from plstm_config.checks import check_degrees, check_edge_attr, check_no_edge_attr, check_topology
from plstm_config.topology import DagTopology

from ._activations import activation
from ._contractions import Array
from ._modules import Cache, Context, Module, mixing
from ._plstm_graph import plstm_graph

# Keeps the P-mode sum below one, and the quotient finite.
P_MODE_MARGIN = 0.5
_PROJECTIONS = (("query", ""), ("key", ""), ("value", "_"))


@mixing(pLSTMGraphLayerConfig)
def layer_graph(module: Module, x: Array, context: Context) -> tuple[Array, Cache]:
    """A node makes gates for its slots; an edge takes that of its rank among the node's edges.

    Slots of outgoing edges serve sources, slots of incoming edges serve marks, pairs of them serve transitions. With
    "swapped" slots an edge takes its rank at its other end.
    """
    config, topology = module.config, as_topology(context.graph, len(x), module.config.mode)
    heads, slots = config.num_heads, config.max_edges
    check_no_edge_attr(context.edge_attr)
    check_degrees(topology.in_degree, topology.out_degree, slots)
    out_rank, in_rank = _ranks(topology.edges[:, 0]), _ranks(topology.edges[:, 1])
    if config.edge_slots == "swapped":
        out_rank, in_rank = in_rank, out_rank
    source, mark, transition = (module.part(name)(x) for name in ("source", "mark", "transition"))
    source, mark = source.reshape(len(x), heads, slots), mark.reshape(len(x), heads, slots)
    transition = transition.reshape(len(x), heads, slots, slots)
    edges = topology.edges.tolist()
    sources = _stack([source[tail, :, out_rank[e]] for e, (tail, _) in enumerate(edges)], heads)
    marks = _stack([mark[head, :, in_rank[e]] for e, (_, head) in enumerate(edges)], heads)
    lines = topology.line_edges.tolist()
    moved = [transition[edges[e][1], :, in_rank[e], out_rank[f]] for e, f in lines]
    return _run(module, x, topology, sources, _stack(moved, heads), marks), {}


@mixing(pLSTMGraphEdgeLayerConfig)
def layer_graph_edge(module: Module, x: Array, context: Context) -> tuple[Array, Cache]:
    """Gates of an edge read its features and those of the node that writes or reads.

    A transition reads both edges and the node that they share, or the tail of the incoming edge.
    """
    config, topology = module.config, as_topology(context.graph, len(x), module.config.mode)
    check_edge_attr(context.edge_attr, topology.num_input_edges, config.edge_input_dim)
    given = np.zeros((topology.num_input_edges, 0)) if context.edge_attr is None else context.edge_attr
    features, edges = given[topology.edge_order], topology.edges.tolist()
    end = {"shared": 1, "tail": 0}[config.transition_node]
    sources = [module.part("source")(np.concatenate([x[tail], features[e]])) for e, (tail, _) in enumerate(edges)]
    marks = [module.part("mark")(np.concatenate([x[head], features[e]])) for e, (_, head) in enumerate(edges)]
    moved = [
        module.part("transition")(np.concatenate([features[e], features[f], x[edges[e][end]]]))
        for e, f in topology.line_edges.tolist()
    ]
    heads = config.num_heads
    return _run(module, x, topology, *(_stack(gates, heads) for gates in (sources, moved, marks))), {}


def as_topology(graph: Any, num_nodes: int, mode: Any) -> DagTopology:
    """A graph as a topology of the wanted mode: given as such, or as an edge index [2,E]."""
    if isinstance(graph, np.ndarray):
        return DagTopology.from_edge_index(num_nodes, graph, mode)
    check_topology(graph, num_nodes, DagTopology)
    return graph.with_mode(mode)


def _run(module: Module, x: Array, topology: DagTopology, source: Array, transition: Array, mark: Array) -> Array:
    """The recurrence between gates [E,H], [L,H], [E,H] and norm and projection."""
    config = module.config
    projections = {name: _by_head(module.part(f"{name}{tail}")(x), config.num_heads) for name, tail in _PROJECTIONS}
    gates: dict[str, Any] = {"source": source, "mark": mark, "direct": module.part("direct")(x)}
    gates = {name: activation("sigmoid", gate).T for name, gate in gates.items()}
    gates["transition"] = _bounded(config, transition, topology).T
    output = plstm_graph(**projections, **gates, topology=topology)
    normed = np.moveaxis(module.part("mhnorm")(np.asarray(output)), 0, 1)
    return module.apply_part("out", normed.reshape(len(x), normed.shape[1] * normed.shape[2]))


def _bounded(config: Any, transition: Array, topology: DagTopology) -> Array:
    """D-mode: ``tanh(t)``. P-mode: ``t / (1/2 + sum |t|)`` over the line edges that leave the same edge.

    With "incoming" normalization the sum runs over those that enter the same edge.
    """
    if config.mode == "D":
        return activation("tanh", transition)
    side = {"outgoing": 0, "incoming": 1}[config.pmode_normalization]
    shared = topology.line_edges[:, side]
    bounded = np.zeros_like(transition)
    for line, edge in enumerate(shared):
        bounded[line] = transition[line] / (P_MODE_MARGIN + np.abs(transition[shared == edge]).sum(axis=0))
    return bounded


def _ranks(nodes: Array) -> list[int]:
    """How many earlier edges have the same node at this end."""
    return [int(np.sum(nodes[:edge] == node)) for edge, node in enumerate(nodes)]


def _by_head(array: Array, heads: int) -> Any:
    """[N, H * d] as [H, N, d]."""
    return np.moveaxis(array.reshape(len(array), heads, array.shape[1] // heads), 1, 0)


def _stack(rows: list[Array], heads: int) -> Array:
    """Rows [H] as [R, H], also where there are none."""
    return np.stack(rows) if rows else np.zeros((0, heads))
