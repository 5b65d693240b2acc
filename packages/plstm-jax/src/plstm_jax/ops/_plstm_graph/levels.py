"""States of all edges by levels: a linear system that is solved by substitution.

    (I - T) C = what enters,        T lower triangular over edges in topological order

The scan below is the substitution. Its derivatives are again such systems, with T or with its transpose, which
`lax.custom_linear_solve` knows; so nothing of the scan is kept for a backward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from plstm_jax.ops._plstm_graph.plan import GraphPlan
from plstm_jax.ops.arrays import contract


def solve_by_levels(
    entering: Float[Array, "E H JT DV DK"], transition: Float[Array, "L H JT JT"], plan: GraphPlan
) -> Float[Array, "E H JT DV DK"]:
    """The states of all edges from what enters each of them.

    Args:
        entering: sources and initial states.
        transition: of the line edges.
        plan: of the graph.

    Returns:
        The states.
    """
    incoming, outgoing = plan.line_edges.T
    missing = plan.edges.shape[0]

    def apply(states: Array) -> Array:
        moved = contract("lhst,lhtvk->lhsvk", transition, _take(states, incoming))
        return states - jnp.zeros_like(states).at[outgoing].add(moved, mode="drop")

    rows = (
        incoming.at[plan.rows].get(mode="fill", fill_value=missing),
        outgoing.at[plan.rows].get(mode="fill", fill_value=missing),
        transition.at[plan.rows].get(mode="fill", fill_value=0),
    )

    def forward(states: Array, row: tuple[Array, Array, Array]) -> tuple[Array, None]:
        come, go, matrices = row
        moved = contract("lhst,lhtvk->lhsvk", matrices, _take(states, come))
        return states.at[go].add(moved, mode="drop"), None

    def backward(adjoint: Array, row: tuple[Array, Array, Array]) -> tuple[Array, None]:
        come, go, matrices = row
        moved = contract("lhts,lhtvk->lhsvk", matrices, _take(adjoint, go))
        return adjoint.at[come].add(moved, mode="drop"), None

    def solve(_: Callable[[Array], Array], right: Array) -> Array:
        return lax.scan(forward, right, rows)[0]

    def transpose_solve(_: Callable[[Array], Array], right: Array) -> Array:
        return lax.scan(backward, right, rows, reverse=True)[0]

    return lax.custom_linear_solve(apply, entering, solve, transpose_solve)


def _take(array: Array, indices: Array) -> Array:
    return array.at[indices].get(mode="fill", fill_value=0)
