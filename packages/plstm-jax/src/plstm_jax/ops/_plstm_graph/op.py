"""The public function: checks, dtypes, padding and the choice of an implementation."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from plstm_config.options import check_implementation, check_kernels
from plstm_config.shapes import PLSTM_GRAPH, Sizes, check_plstm_graph
from plstm_jax.ops._plstm_graph.forms import run_form, suitable_form
from plstm_jax.ops._plstm_graph.native import OP, native, without_native_kernels
from plstm_jax.ops._plstm_graph.plan import GraphPlan, plan_graph
from plstm_jax.ops.arrays import compute_dtype, contract, scale_factor

IMPLEMENTATIONS = ("auto", "recurrent", "parallel", "native")
# State-tracking dimensions of query, key, value, source, transition, mark, direct.
_TRAILING = (1, 1, 1, 3, 2, 3, 4)


def plstm_graph(
    query: Float[Array, "H N *DKJQ"],
    key: Float[Array, "H N *DKJK"],
    value: Float[Array, "H N *DVJV"],
    source: Float[Array, "H E *JTJKJV"],
    transition: Float[Array, "H L *JTJT"],
    mark: Float[Array, "H E *JOJQJT"],
    direct: Float[Array, "H N *JOJQJKJV"],
    topology: Any,
    *,
    initial_state: Float[Array, "H E DK DV *JT"] | None = None,
    return_last_state: bool = False,
    scale: float | Float[Array, ""] | None = None,
    implementation: str = "auto",
) -> Float[Array, "H N *DVJO"] | tuple[Float[Array, "H N *DVJO"], Float[Array, "H E DK DV *JT"]]:
    """Run pLSTM over a directed acyclic graph, or over a whole batch of graphs as one.

    With edge e from node n to node m::

        C_e = initial_e + sum over incoming e' of T_{e e'} C_{e'} + S_e (K_n ⊗ V_n)
        H_n = scale * Q_n (sum over incoming e of M_e C_e + D_n (K_n ⊗ V_n))

    Gates are scalars, or carry the state-tracking dimensions of the sequence and grid ops behind them if `query` is
    [H,N,DK,JQ]; then key is [H,N,DK,JK], value [H,N,DV,JV], source [H,E,JT,JK,JV], transition [H,L,JT,JT],
    mark [H,E,JO,JQ,JT], direct [H,N,JO,JQ,JK,JV], the output [H,N,DV,JO] and a state [H,E,DK,DV,JT].

    Computes in float32, or in float64 if an argument has it; the output has the dtype of `value`, the state that of
    the computation. Every argument that is an array of floats may be differentiated, in any mode and to any order.

    Given a topology, everything is padded to the sizes of its plan inside, so that graphs of similar size share one
    compiled program. A function of your own that is jitted once for many graphs takes the plan as an argument instead,
    and arrays padded with its methods.

    Args:
        query: [H,N,DK], any floating dtype, like all arrays here.
        key: [H,N,DK].
        value: [H,N,DV].
        source: one per edge [H,E].
        transition: one per line edge [H,L].
        mark: one per edge [H,E].
        direct: one per node [H,N].
        topology: a `plstm_config.topology.DagTopology`, anything with `edges` [E,2], pairs (tail, head) in
            topological order, and `line_edges` [L,2], pairs (incoming, outgoing) of indices into `edges`; or the
            `GraphPlan` of one, made by `plan_graph`.
        initial_state: what enters each edge from outside [H,E,DK,DV]; zero if None.
        return_last_state: also return the state of every edge.
        scale: factor of the output; 1 if None.
        implementation: "recurrent" (level by level over all graphs at once, memory linear in edges), "parallel" (one
            triangular solve per graph, quadratic in the edges of the largest graph), "native" (compiled kernels for
            CPUs, edge by edge; scalar gates), or "auto".

    Returns:
        Output [H,N,DV], or the pair of it and the states [H,E,DK,DV].

    Raises:
        TypeError: if an argument is no array, or no array of floats, or `topology` lacks an attribute.
        ValueError: if a shape, an index or the name of the implementation is wrong, the edges are not in topological
            order, or "native" cannot take the call.

    Examples:
        >>> import jax.numpy as jnp
        >>> from plstm_config.topology import DagTopology
        >>> from plstm_jax.ops import plstm_graph
        >>> graph = DagTopology.from_edges(4, [(0, 1), (0, 2), (1, 3), (2, 3)])
        >>> nodes, edges, lines = graph.num_nodes, len(graph.edges), len(graph.line_edges)
        >>> query, value, gate = jnp.ones((2, nodes, 5)), jnp.ones((2, nodes, 3)), jnp.ones((2, edges))
        >>> plstm_graph(query, query, value, gate, jnp.ones((2, lines)), gate, jnp.ones((2, nodes)), graph).shape
        (2, 4, 3)

    Source:
        Equations 5 and 6 of the pLSTM paper; "parallel" is its equation 7.
    """
    arrays = (query, key, value, source, transition, mark, direct)
    sizes = check_plstm_graph(*arrays, topology, initial_state=initial_state, scale=scale)
    plan = topology if isinstance(topology, GraphPlan) else plan_graph(topology, sizes["N"])
    with_states = initial_state is not None or return_last_state
    implementation = resolve(implementation, plan.max_edges, with_states, sizes, query)
    dtype = compute_dtype(**dict(zip(PLSTM_GRAPH, arrays, strict=True)), initial_state=initial_state)
    given = [jnp.asarray(array, dtype) for array in arrays]
    given[0] = given[0] * scale_factor(scale, 1.0, dtype)
    if initial_state is not None:
        given.append(jnp.asarray(initial_state, dtype))
    if "JT" not in sizes:
        given = [array.reshape(*array.shape, *[1] * n) for array, n in zip(given, (*_TRAILING, 1), strict=False)]
    output, *states = _run(plan, *_padded(plan, given), implementation=implementation, with_states=with_states)
    output, states = output[:, : sizes["N"]], [state[:, : sizes["E"]] for state in states]
    if "JT" not in sizes:
        output, states = output[..., 0], [state[..., 0] for state in states]
    output = output.astype(jnp.result_type(value))
    return (output, states[0]) if return_last_state else output


def resolve(implementation: str, max_edges: int, with_states: bool, sizes: Sizes, query: Any) -> str:
    """The implementation that a call runs; "auto" is decided here and nowhere else.

    Raises:
        ValueError: if a name is none of the implementations, or "native" cannot take the call.
    """
    check_implementation(implementation, IMPLEMENTATIONS)
    if implementation not in ("auto", "native"):
        return implementation
    reason = without_native_kernels(query, sizes)
    if implementation == "native":
        check_kernels(OP, implementation, reason)
    return "native" if reason is None else suitable_form(max_edges, with_states=with_states)


def _padded(plan: GraphPlan, given: list[Array]) -> list[Array]:
    query, key, value, source, transition, mark, direct, *initial = given
    return [
        *(plan.pad_nodes(array) for array in (query, key, value)),
        plan.pad_edges(source),
        plan.pad_line_edges(transition),
        plan.pad_edges(mark),
        plan.pad_nodes(direct),
        *(plan.pad_edges(array) for array in initial),
    ]


@partial(jax.jit, static_argnames=("implementation", "with_states"))
def _run(plan: GraphPlan, *given: Array, implementation: str, with_states: bool) -> tuple[Array, ...]:
    """Output [H,N,DV,JO] and, unless they are never computed, states [H,E,DK,DV,JT] of padded arrays."""
    query, key, value, source, transition, mark, direct, *initial = given
    own = contract(
        "hnov,hnev->hneo", contract("hnoqkv,hnqk->hnov", direct, contract("hndq,hndk->hnqk", query, key)), value
    )
    inputs = [query, key, value, source, transition, mark, *initial]
    if implementation == "native":
        read, *states = native(plan, inputs, with_states=with_states)
    else:
        read, *states = run_form(plan, implementation, inputs, with_states=with_states)
    return own + read, *states
