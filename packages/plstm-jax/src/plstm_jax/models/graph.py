"""The graph model: encoder, blocks in alternating directions, pooling, head."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from plstm_config import pLSTMGraphModelConfig
from plstm_config.options import check_choice
from plstm_jax.context import Context
from plstm_jax.dtypes import dtype_of, wide
from plstm_jax.formulas import Result, Scope, register
from plstm_jax.graphs import Graph, as_topology


@register(pLSTMGraphModelConfig)
def graph_model(config: pLSTMGraphModelConfig, scope: Scope, x: Array, context: Context) -> Result:
    """Classifier or regressor of whole graphs, or of their nodes.

    x = encoder(features) + degree encoding; blocks 0, 2, ... run along the edges, blocks 1, 3, ... against them, so
    that a node hears of all that is connected to it by a directed path; then norm, pooling and head.

    Args:
        config: complete config.
        scope: holds `encoder`, `block_stack`, `norm`, `head`, and `degree_encoding.in_degree`,
            `degree_encoding.out_degree` [max_degree + 1, dim]; higher degrees share the last row.
        x: node features [N, input_dim], graph after graph.
        context: the graph, and the features of its edges [E, edge_input_dim] in the order in which they were given.

    Returns:
        Predictions [G, output_dim], [N, output_dim] with pooling "none", in the config's dtype.

    Raises:
        ValueError: if features or sizes do not fit the config or the graph.
    """
    topology = as_topology(context.graph, x.shape[0])
    hidden = scope.map("encoder", x)
    if config.degree_encoding:
        entering, leaving = (
            scope.need(f"degree_encoding.{name}")[jnp.minimum(getattr(topology, name), config.max_degree)]
            for name in ("in_degree", "out_degree")
        )
        hidden = hidden + (entering + leaving).astype(dtype_of(config.dtype))
    directions = topology, topology.reverse()
    contexts = [replace(context, graph=directions[index % 2]) for index in range(config.num_blocks)]
    hidden, _ = scope.repeat("block_stack.blocks", hidden, contexts)
    hidden = scope.map("norm", hidden)
    if config.pooling != "none":
        hidden = pool_graphs(hidden, topology, config.pooling)
    return scope.map("head", hidden), {}


def pool_graphs(features: Float[Array, "N D"], topology: Graph, pooling: str) -> Float[Array, "G D"]:
    """Reduce the nodes of each graph.

    Args:
        features: node features [N, D].
        topology: the graphs.
        pooling: "mean", "sum" or "max".

    Returns:
        Features of each graph [G, D], zero for a graph without nodes, in the dtype of `features`.

    Raises:
        ValueError: if the pooling is unknown.
    """
    values, sizes = features.astype(wide(features.dtype)), topology.graph_sizes[:, None]
    check_choice("pooling", pooling, ("mean", "sum", "max"))
    reduce = jax.ops.segment_max if pooling == "max" else jax.ops.segment_sum
    pooled = reduce(values, topology.node_graph, num_segments=topology.num_graphs)
    if pooling == "max":
        pooled = jnp.where(sizes > 0, pooled, 0)
    if pooling == "mean":
        pooled = pooled / jnp.maximum(sizes, 1)
    return pooled.astype(features.dtype)
