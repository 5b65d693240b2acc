"""One triangular solve for every graph of the batch: best for many small graphs."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from plstm_jax.ops._plstm_graph.plan import GraphPlan
from plstm_jax.ops._plstm_graph.triangular import inverse_of_unit_lower
from plstm_jax.ops.arrays import contract, masked_attention


def read_dense(
    plan: GraphPlan,
    query: Float[Array, "N H DK JQ"],
    key: Float[Array, "N H DK JK"],
    value: Float[Array, "N H DV JV"],
    source: Float[Array, "E H JT JK JV"],
    transition: Float[Array, "L H JT JT"],
    mark: Float[Array, "E H JO JQ JT"],
) -> Float[Array, "N H DV JO"]:
    """What the nodes read from the edges, by gating matrices M (I - T)^-1 S from node to node.

    Args:
        plan: of the graphs.
        query: of the nodes.
        key: of the nodes.
        value: of the nodes.
        source: of the edges.
        transition: of the line edges.
        mark: of the edges, scaled.

    Returns:
        The output without the direct term.
    """
    sizes = plan.num_graphs, plan.max_nodes, plan.max_edges
    graph, tail, head = _places(plan)
    g, n, e = sizes
    heads, (jt, jk, jv), (jo, jq) = source.shape[1], source.shape[2:], mark.shape[2:4]
    written = jnp.zeros([g, e, n, heads, jt, jk, jv], source.dtype)
    written = written.at[graph, plan.edge_rank, tail].add(source, mode="drop")
    written = written.transpose(0, 3, 1, 4, 2, 5, 6).reshape(g, heads, e * jt, n * jk * jv)
    read = jnp.zeros([g, n, e, heads, jo, jq, jt], mark.dtype)
    read = read.at[graph, head, plan.edge_rank].add(mark, mode="drop")
    read = read.transpose(0, 3, 1, 4, 5, 2, 6).reshape(g, heads, n * jo * jq, e * jt)
    gating = contract("ghxe,ghey->ghxy", read, _solve(written, transition, plan))
    gating = gating.reshape(g, heads, n, jo, jq, n, jk, jv)
    q, k, v = (_scatter_nodes(array, plan) for array in (query, key, value))
    output = masked_attention(q, k, v, gating)  # [G,H,N,DV,JO]
    return jnp.swapaxes(output, 1, 2).at[plan.node_graph, plan.node_rank].get(mode="fill", fill_value=0)


def solve_dense(
    entering: Float[Array, "E H JT DV DK"], transition: Float[Array, "L H JT JT"], plan: GraphPlan
) -> Float[Array, "E H JT DV DK"]:
    """The states of all edges from what enters each of them; as `solve_by_levels`."""
    graph, _, _ = _places(plan)
    _, heads, *state = entering.shape
    padded = jnp.zeros([plan.num_graphs, plan.max_edges, heads, *state], entering.dtype)
    padded = padded.at[graph, plan.edge_rank].add(entering, mode="drop")
    columns = state[1] * state[2]
    right = jnp.swapaxes(padded, 1, 2).reshape(plan.num_graphs, heads, plan.max_edges * state[0], columns)
    solved = _solve(right, transition, plan).reshape(plan.num_graphs, heads, plan.max_edges, *state)
    return jnp.swapaxes(solved, 1, 2).at[graph, plan.edge_rank].get(mode="fill", fill_value=0)


def _solve(right: Array, transition: Array, plan: GraphPlan) -> Array:
    """(I - T)^-1 times `right` [G,H,(E JT),...]: unit triangular, because edges stand in topological order."""
    graph, _, _ = _places(plan)
    g, e, (heads, jt) = plan.num_graphs, plan.max_edges, transition.shape[1:3]
    incoming, outgoing = plan.line_edges.T
    place, rank = graph.at[outgoing].get(mode="fill", fill_value=g), plan.edge_rank
    rows, columns = (rank.at[edge].get(mode="fill", fill_value=0) for edge in (outgoing, incoming))
    matrix = jnp.zeros([g, e, e, heads, jt, jt], transition.dtype)
    matrix = matrix.at[place, rows, columns].add(transition, mode="drop")
    matrix = matrix.transpose(0, 3, 1, 4, 2, 5).reshape(g, heads, e * jt, e * jt)
    return contract("ghij,ghjc->ghic", inverse_of_unit_lower(matrix), right)


def _places(plan: GraphPlan) -> tuple[Array, Array, Array]:
    """Of each edge: its graph (one past the end for padding), and the ranks of its tail and head."""
    tail, head = plan.edges.T
    graph = plan.node_graph.at[tail].get(mode="fill", fill_value=plan.num_graphs)
    first, last = (plan.node_rank.at[node].get(mode="fill", fill_value=0) for node in (tail, head))
    return graph, first, last


def _scatter_nodes(array: Array, plan: GraphPlan) -> Array:
    """[N,H,...] to [G,H,max_nodes,...]."""
    padded = jnp.zeros([plan.num_graphs, plan.max_nodes, *array.shape[1:]], array.dtype)
    return jnp.swapaxes(padded.at[plan.node_graph, plan.node_rank].add(array, mode="drop"), 1, 2)
