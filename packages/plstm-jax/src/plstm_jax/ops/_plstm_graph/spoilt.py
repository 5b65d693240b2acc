"""What is not finite, and whom it reaches: the dense form computes without it and marks them afterwards.

A product with the matrix of a whole graph lets one NaN reach every node of it, since zero times NaN is NaN. So numbers
that are not finite count as zero there, and what a walk along the edges would have led them to is multiplied by NaN,
which makes its gradients NaN as well.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from plstm_jax.ops._plstm_graph.levels import solve_by_levels
from plstm_jax.ops._plstm_graph.plan import GraphPlan


def is_spoilt(array: Float[Array, "R H ..."]) -> Bool[Array, "R H"]:
    """Whether anything in a row is not finite."""
    return ~jnp.all(jnp.isfinite(array), axis=range(2, array.ndim))


def marked(array: Float[Array, "R H ..."], spoilt: Bool[Array, "R H"]) -> Float[Array, "R H ..."]:
    """The array with NaN in the rows that are spoilt."""
    factor = jnp.where(spoilt, jnp.full((), jnp.nan, array.dtype), jnp.ones((), array.dtype))
    return array * lax.expand_dims(factor, range(2, array.ndim))


def spoilt_edges(
    entering: Bool[Array, "E H"], transition: Float[Array, "L H JT JT"], plan: GraphPlan
) -> Bool[Array, "E H"]:
    """Find the edges whose states are not finite.

    Args:
        entering: those into which something enters that is not.
        transition: of the line edges.
        plan: of the graphs.

    Returns:
        Whether each edge is one.
    """
    entering = entering.at[plan.line_edges[:, 1]].max(is_spoilt(transition), mode="drop")
    # Paths are counted, which may overflow to infinity, but never to NaN. No condition: it would need all devices.
    counts = entering.astype(jnp.float32)[..., None, None, None]
    return solve_by_levels(counts, jnp.ones((*transition.shape[:2], 1, 1), jnp.float32), plan)[..., 0, 0, 0] > 0


def spoilt_nodes(
    plan: GraphPlan,
    query: Float[Array, "N H DK JQ"],
    key: Float[Array, "N H DK JK"],
    value: Float[Array, "N H DV JV"],
    source: Float[Array, "E H JT JK JV"],
    transition: Float[Array, "L H JT JT"],
    mark: Float[Array, "E H JO JQ JT"],
) -> Bool[Array, "N H"]:
    """The nodes that read from the edges what is not finite; arguments as of `read_dense`."""
    tail, head = plan.edges.T
    written = (is_spoilt(key) | is_spoilt(value)).at[tail].get(mode="fill", fill_value=False)
    edges = spoilt_edges(written | is_spoilt(source), transition, plan) | is_spoilt(mark)
    # A query only matters where there is an edge to read from.
    edges = edges | is_spoilt(query).at[head].get(mode="fill", fill_value=False)
    return jnp.zeros(query.shape[:2], bool).at[head].max(edges, mode="drop")
