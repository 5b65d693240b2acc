"""The pLSTM layers on directed acyclic graphs: gates from nodes, or from nodes and edges."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from plstm_config import pLSTMGraphEdgeLayerConfig, pLSTMGraphLayerConfig
from plstm_config.checks import check_edge_attr, check_features, check_no_edge_attr
from plstm_config.topology import DagTopology
from plstm_jax.axes import merge_axes
from plstm_jax.context import Context
from plstm_jax.dtypes import answer, dtype_of, wide
from plstm_jax.formulas import Result, Scope, register
from plstm_jax.graphs import Graph, as_topology, check_degrees, op_graph
from plstm_jax.ops import plstm_graph

_Config = pLSTMGraphLayerConfig | pLSTMGraphEdgeLayerConfig

# Keeps the sum of |T| over the edges that share a state below one, and T finite where all are zero.
_PMODE_MARGIN = 0.5


@register(pLSTMGraphLayerConfig)
def plstm_graph_layer(config: pLSTMGraphLayerConfig, scope: Scope, x: Array, context: Context) -> Result:
    """Multi-head pLSTM over a directed acyclic graph with gates from node features.

    Every node makes gates for up to E = `max_edges` edges, its slots. The slot of an edge is its rank among the edges
    that leave (source) or enter (mark) the node, in the order of the topology's `edges`; the transition of node n from
    an incoming to an outgoing edge is entry [n, in slot, out slot]. With t = W_t x + b_t and so on:

        S = sigmoid(W_s x + b_s), M = sigmoid(W_m x + b_m), D = sigmoid(W_d x + b_d)
        P-mode: T = t / (1/2 + sum over the edges that leave from the same incoming edge of |t|)
        D-mode: T = tanh(t) on the line graph pruned to a multitree
        out = W_o norm(plstm_graph(W_q x, W_k x, W_v x, S, T, M, D))

    `pmode_normalization="incoming"` sums over the edges that enter the same outgoing edge instead, which does not
    bound that sum; `edge_slots="swapped"` takes the slot of an edge at its other end. Both are the research code's.

    Args:
        config: complete config.
        scope: holds `query`, `key`, `value_`, `source` (output H*E, head major), `transition` (H*E*E), `mark` (H*E),
            `direct` (H), `mhnorm`, `out`.
        x: node features [N, input_dim] of any floating dtype.
        context: the graph, of either mode.

    Returns:
        [N, output_dim] in the dtype of x.

    Raises:
        ValueError: if x has another rank or number of features, the graph another number of nodes or more than
            `max_edges` edges at one end of a node, or if there are edge features. A traced graph with too many edges
            at a node gives NaN instead.
    """
    check_features(x, "N D", config.input_dim)
    check_no_edge_attr(context.edge_attr)
    topology = as_topology(context.graph, x.shape[0], config.mode)
    check_degrees(topology, config.max_edges)
    source_slot, mark_slot = topology.out_slot, topology.in_slot
    if config.edge_slots == "swapped":
        source_slot, mark_slot = mark_slot, source_slot
    (tail, head), (incoming, outgoing), size = topology.edges.T, topology.line_edges.T, config.max_edges

    def pick(name: str, place: Any) -> Array:
        """Rows `place` of the gates of all nodes and slots, [E, H]."""
        gates = _wide(scope, name, x)
        by_slot = jnp.swapaxes(gates.reshape(x.shape[0], config.num_heads, gates.shape[1] // config.num_heads), 1, 2)
        picked = merge_axes(by_slot, 0, 1)[place]
        return picked if isinstance(topology, DagTopology) else jnp.where(fits, picked, jnp.nan)

    fits = jnp.max(jnp.concatenate([topology.in_degree, topology.out_degree])) <= size
    slots = mark_slot[incoming] * size + source_slot[outgoing]
    source, mark = pick("source", tail * size + source_slot), pick("mark", head * size + mark_slot)
    transition = pick("transition", tail[outgoing] * size * size + slots)
    return _run(config, scope, x, topology, source, transition, mark), {}


@register(pLSTMGraphEdgeLayerConfig)
def plstm_graph_edge_layer(config: pLSTMGraphEdgeLayerConfig, scope: Scope, x: Array, context: Context) -> Result:
    """Multi-head pLSTM over a directed acyclic graph with gates from node and edge features.

    With tail x_t, head x_h and features a of each edge, and for a line edge the features a_i, a_o of the incoming and
    the outgoing edge and the node x_n that they share:

        S = sigmoid(W_s [x_t; a] + b_s), M = sigmoid(W_m [x_h; a] + b_m), D = sigmoid(W_d x + b_d)
        t = W_t [a_i; a_o; x_n] + b_t

    The rest is that of `plstm_graph_layer`. `transition_node="tail"` reads the tail of the incoming edge in place of
    x_n, as the research code does.

    Args:
        config: complete config.
        scope: holds `query`, `key`, `value_`, `source`, `transition`, `mark`, `direct` (output H each), `mhnorm`,
            `out`.
        x: node features [N, input_dim] of any floating dtype.
        context: the graph, of either mode, and the features of its edges [E, edge_input_dim] in the order in which the
            edges were given; None stands for no features.

    Returns:
        [N, output_dim] in the dtype of x.

    Raises:
        ValueError: if x or the edge features have another rank or number of features, or the graph has another number
            of nodes or edges.
    """
    check_features(x, "N D", config.input_dim)
    topology = as_topology(context.graph, x.shape[0], config.mode)
    edges = _edge_features(config, x, topology, context.edge_attr)[topology.edge_order]
    (tail, head), (incoming, outgoing), every = topology.edges.T, topology.line_edges.T, slice(None)
    node = tail[outgoing if config.transition_node == "shared" else incoming]
    source = _apply_to_parts(config, scope, "source", (x, tail), (edges, every))
    mark = _apply_to_parts(config, scope, "mark", (x, head), (edges, every))
    transition = _apply_to_parts(config, scope, "transition", (edges, incoming), (edges, outgoing), (x, node))
    return _run(config, scope, x, topology, source, transition, mark), {}


def _run(
    config: _Config, scope: Scope, x: Array, topology: Graph, source: Array, transition: Array, mark: Array
) -> Array:
    """From gates [E,H], transitions [L,H] before their stabilisation, and [E,H] to the layer's output [N,D]."""
    heads, nodes = config.num_heads, x.shape[0]

    def split(array: Array) -> Array:
        return jnp.moveaxis(array.reshape(nodes, heads, array.shape[1] // heads), 1, 0)

    query, key, value = (split(scope.map(name, x)) for name in ("query", "key", "value_"))
    source, mark, direct = (jax.nn.sigmoid(gate).T for gate in (source, mark, _wide(scope, "direct", x)))
    stabilized = _stabilized(config, transition, topology).T
    implementation = config.implementation
    output: Any = plstm_graph(
        query, key, value, source, stabilized, mark, direct, op_graph(topology), implementation=implementation
    )
    normed = merge_axes(jnp.moveaxis(scope.map("mhnorm", output), 0, -2), 1, -1).astype(dtype_of(config.dtype))
    return answer(scope.map("out", normed) if config.out else normed, x)


def _stabilized(config: _Config, transition: Array, topology: Graph) -> Array:
    """Bound the transitions as the mode demands: |T| <= 1 (D), or their sum over edges that share a state (P)."""
    if config.mode == "D":
        return jnp.tanh(transition)
    shared = topology.line_edges[:, 0 if config.pmode_normalization == "outgoing" else 1]
    sizes = jnp.zeros((len(topology.edges), config.num_heads), transition.dtype).at[shared].add(jnp.abs(transition))
    return transition / (_PMODE_MARGIN + sizes[shared])


def _edge_features(config: pLSTMGraphEdgeLayerConfig, x: Array, topology: Graph, edge_attr: Array | None) -> Array:
    check_edge_attr(edge_attr, topology.num_input_edges, config.edge_input_dim)
    return jnp.zeros((topology.num_input_edges, 0), x.dtype) if edge_attr is None else jnp.asarray(edge_attr)


def _apply_to_parts(config: _Config, scope: Scope, name: str, *parts: tuple[Array, Any]) -> Array:
    """A linear map of concatenated rows, each part [R,D] with the rows [M] to take from it.

    A part is mapped before its rows are taken, once for each node or edge instead of once for each of their meetings.
    """
    work, sums = dtype_of(config.dtype), wide(config.dtype)
    result, first = scope.need(f"{name}.bias").astype(sums), 0
    weight = scope.need(f"{name}.weight").astype(work)
    for values, rows in parts:
        last = first + values.shape[-1]
        mapped = jnp.einsum("rd,hd->rh", values.astype(work), weight[:, first:last]).astype(sums)
        result, first = result + mapped[rows], last
    return result


def _wide(scope: Scope, name: str, x: Array) -> Array:
    """A linear map in float32 or higher: gates are multiplied along whole paths."""
    result = scope.map(name, x)
    return result.astype(wide(result.dtype))
