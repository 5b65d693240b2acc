"""The forms in operations of JAX, and which of them suits a graph."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from plstm_jax.ops._plstm_graph.dense import read_dense, solve_dense
from plstm_jax.ops._plstm_graph.levels import solve_by_levels
from plstm_jax.ops._plstm_graph.plan import GraphPlan
from plstm_jax.ops._plstm_graph.spoilt import is_spoilt, marked, spoilt_edges, spoilt_nodes
from plstm_jax.ops.arrays import contract, only_finite

# Edges of the largest graph up to which one triangular solve is faster than the levels.
FEW_EDGES = 100


def suitable_form(max_edges: int, *, with_states: bool) -> str:
    """The form in operations of JAX that is fastest: "parallel" or "recurrent"."""
    return "parallel" if max_edges <= FEW_EDGES and not with_states else "recurrent"


def run_form(plan: GraphPlan, name: str, given: list[Array], *, with_states: bool) -> tuple[Array, ...]:
    """Run a form by name.

    Args:
        plan: of the graphs.
        name: "recurrent" or "parallel".
        given: query, key, value, source, transition, mark and, if states enter, those, shaped as in `plstm_graph` with
            J dimensions and padded.
        with_states: whether states are wanted.

    Returns:
        What the nodes read from the edges [H,N,DV,JO] and, if wanted, the states [H,E,DK,DV,JT].
    """
    query, key, value, source, transition, mark, *initial = (jnp.swapaxes(array, 0, 1) for array in given)
    if name == "parallel" and not with_states:
        arrays = query, key, value, source, transition, mark
        read = read_dense(plan, *(only_finite(array) for array in arrays))
        return (jnp.swapaxes(marked(read, spoilt_nodes(plan, *arrays)), 0, 1),)
    tail, head = plan.edges.T
    keys, values, queries = (
        array.at[node].get(mode="fill", fill_value=0) for array, node in ((key, tail), (value, tail), (query, head))
    )
    written = contract("ehtkj,ehvj->ehtkv", source, values)
    entering = contract("ehtkv,ehdk->ehtvd", written, keys)
    if initial:
        entering = entering + _turned(initial[0])
    if name == "parallel":
        spoilt = spoilt_edges(is_spoilt(entering), transition, plan)
        states = marked(solve_dense(only_finite(entering), only_finite(transition), plan), spoilt)
    else:
        states = solve_by_levels(entering, transition, plan)
    reading = contract("ehoqt,ehdq->ehotd", mark, queries)
    gathered = contract("ehtvd,ehotd->ehvo", states, reading)
    read = jnp.zeros((value.shape[0], *gathered.shape[1:]), value.dtype).at[head].add(gathered, mode="drop")
    return (jnp.swapaxes(read, 0, 1), jnp.swapaxes(_turned(states), 0, 1))[: 1 + with_states]


def _turned(states: Array) -> Array:
    """[E, H, DK, DV, JT] as the products leave and take it, [E, H, JT, DV, DK], and back."""
    return jnp.swapaxes(states, 2, 4)
