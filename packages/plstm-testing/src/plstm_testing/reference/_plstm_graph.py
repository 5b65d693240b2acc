"""pLSTM on a directed acyclic graph: the definition itself."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from plstm_config.shapes import PLSTM_GRAPH, check_plstm_graph
from plstm_config.topology.indices import check_indices

from ._contractions import MOVE, READ, SKIP, WRITE, Array, double


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
    scale: float | None = None,
) -> Float[Array, "H N *DVJO"] | tuple[Float[Array, "H N *DVJO"], Float[Array, "H E DK DV *JT"]]:
    """Run pLSTM over a graph, edge by edge in topological order.

    With edge e from node n to node m::

        C_e = initial_e + sum over incoming e' of T_{e e'} C_{e'} + S_e (K_n ⊗ V_n)
        H_n = scale * Q_n (sum over incoming e of M_e C_e + D_n (K_n ⊗ V_n))

    Gates are scalars, or carry the state-tracking dimensions of the sequence and grid ops behind them if `query` is
    [H,N,DK,JQ]; then key is [H,N,DK,JK], value [H,N,DV,JV], source [H,E,JT,JK,JV], transition [H,L,JT,JT],
    mark [H,E,JO,JQ,JT], direct [H,N,JO,JQ,JK,JV], the output [H,N,DV,JO] and a state [H,E,DK,DV,JT].

    Args:
        query: [H,N,DK], any real dtype (computed in float64).
        key: [H,N,DK].
        value: [H,N,DV].
        source: one per edge [H,E].
        transition: one per line edge [H,L].
        mark: one per edge [H,E].
        direct: one per node [H,N].
        topology: has `edges` [E,2], pairs (tail, head) in topological order, and `line_edges` [L,2], pairs
            (incoming, outgoing) of indices into `edges`.
        initial_state: what enters each edge from outside [H,E,DK,DV]; zero if None.
        return_last_state: also return the state of every edge.
        scale: factor of the output; 1 if None.

    Returns:
        Output [H,N,DV], or the pair of it and the states [H,E,DK,DV].

    Raises:
        TypeError: if an argument is no array, or `topology` lacks an attribute.
        ValueError: if a shape is wrong, an index is out of range, or the edges are not in topological order.

    Examples:
        >>> import numpy as np
        >>> from plstm_config.topology import DagTopology
        >>> from plstm_testing.reference import plstm_graph
        >>> graph, nodes, edges = DagTopology.from_edges(3, [(0, 1), (1, 2)]), np.ones((1, 3, 4)), np.ones((1, 2))
        >>> plstm_graph(nodes, nodes, nodes, edges, np.ones((1, 1)), edges, np.ones((1, 3)), graph)[0, :, 0].tolist()
        [4.0, 8.0, 12.0]

    Source:
        Equations 5 and 6 of the pLSTM paper.
    """
    arrays = (query, key, value, source, transition, mark, direct)
    run = _forward(arrays, topology, initial_state, scale)
    output, states = (run.output, run.states) if run.state_tracking else (run.output[..., 0], run.states[..., 0])
    return (output, states) if return_last_state else output


def plstm_graph_gradients(
    query: Float[Array, "H N *DKJQ"],
    key: Float[Array, "H N *DKJK"],
    value: Float[Array, "H N *DVJV"],
    source: Float[Array, "H E *JTJKJV"],
    transition: Float[Array, "H L *JTJT"],
    mark: Float[Array, "H E *JOJQJT"],
    direct: Float[Array, "H N *JOJQJKJV"],
    topology: Any,
    *,
    cotangent: Float[Array, "H N *DVJO"],
    cotangent_state: Float[Array, "H E DK DV *JT"] | None = None,
    initial_state: Float[Array, "H E DK DV *JT"] | None = None,
    scale: float | None = None,
) -> dict[str, Array]:
    """Gradients of ``sum(output * cotangent) + sum(last_state * cotangent_state)``: the edges in reverse order.

    Args:
        query: as in `plstm_graph`, like every argument that is not explained here.
        key: see `plstm_graph`.
        value: see `plstm_graph`.
        source: see `plstm_graph`.
        transition: see `plstm_graph`.
        mark: see `plstm_graph`.
        direct: see `plstm_graph`.
        topology: see `plstm_graph`.
        cotangent: weights of the output.
        cotangent_state: weights of the states, zero if None.
        initial_state: see `plstm_graph`.
        scale: see `plstm_graph`.

    Returns:
        Gradient by argument name; `initial_state` always among them.

    Raises:
        TypeError: if an argument is no array, or `topology` lacks an attribute.
        ValueError: if a shape is wrong, an index is out of range, or the edges are not in topological order.
    """
    arrays = (query, key, value, source, transition, mark, direct)
    run = _forward(arrays, topology, initial_state, scale)
    q, k, v, s, t, m, d = run.arrays
    dq, dk, dv, ds, dt, dm, dd = (np.zeros_like(array) for array in run.arrays)
    weights = run.scale * double(cotangent).reshape(run.output.shape)
    adjoint = np.zeros_like(run.states)
    if cotangent_state is not None:
        adjoint += double(cotangent_state).reshape(adjoint.shape)
    for node in range(q.shape[1]):
        at = np.s_[:, node]
        found = SKIP.gradients(weights[at], q[at], d[at], k[at], v[at])
        for total, gradient in zip((dq, dd, dk, dv), found, strict=True):
            total[at] += gradient
    for edge in reversed(range(len(run.edges))):
        tail, head = run.edges[edge]
        read = READ.gradients(weights[:, head], q[:, head], m[:, edge], run.states[:, edge])
        dq[:, head] += read[0]
        dm[:, edge] = read[1]
        adjoint[:, edge] += read[2]
        ds[:, edge], to_key, to_value = WRITE.gradients(adjoint[:, edge], s[:, edge], k[:, tail], v[:, tail])
        dk[:, tail] += to_key
        dv[:, tail] += to_value
        for line, incoming in run.incoming[edge]:
            dt[:, line], to_state = MOVE.gradients(adjoint[:, edge], t[:, line], run.states[:, incoming])
            adjoint[:, incoming] += to_state
    gradients = dict(zip(PLSTM_GRAPH, (dq, dk, dv, ds, dt, dm, dd), strict=True))
    if not run.state_tracking:
        gradients = {
            name: gradients[name].reshape(array.shape) for name, array in zip(PLSTM_GRAPH, arrays, strict=True)
        }
    gradients["initial_state"] = adjoint if run.state_tracking else adjoint[..., 0]
    return gradients


class _Run(NamedTuple):
    arrays: tuple[Array, ...]
    edges: list[list[int]]
    incoming: list[list[tuple[int, int]]]  # of each edge: (line edge, edge it comes from)
    scale: float
    output: Array
    states: Array
    state_tracking: bool


def _forward(arrays: tuple[Array, ...], topology: Any, initial_state: Array | None, scale: object) -> _Run:
    sizes = check_plstm_graph(
        **dict(zip(PLSTM_GRAPH, arrays, strict=True)), topology=topology, initial_state=initial_state, scale=scale
    )
    edges, incoming = _indices(topology, sizes["N"])
    state_tracking = "JT" in sizes
    doubles = tuple(double(array) for array in arrays)
    if not state_tracking:
        trailing = (1, 1, 1, 3, 2, 3, 4)  # state-tracking dimensions of query, key, value, source, ...
        doubles = tuple(a.reshape(*a.shape, *[1] * n) for a, n in zip(doubles, trailing, strict=True))
    q, k, v, s, t, m, d = doubles
    factor = 1.0 if scale is None else float(np.asarray(scale))
    states = np.zeros([sizes["H"], sizes["E"], sizes["DK"], sizes["DV"], sizes.get("JT", 1)])
    if initial_state is not None:
        states += double(initial_state).reshape(states.shape)
    output = np.zeros([sizes["H"], sizes["N"], sizes["DV"], sizes.get("JO", 1)])
    for node in range(sizes["N"]):
        at = np.s_[:, node]
        output[at] = factor * SKIP(q[at], d[at], k[at], v[at])
    for edge, (tail, head) in enumerate(edges):
        states[:, edge] += WRITE(s[:, edge], k[:, tail], v[:, tail])
        for line, earlier in incoming[edge]:
            states[:, edge] += MOVE(t[:, line], states[:, earlier])
        output[:, head] += factor * READ(q[:, head], m[:, edge], states[:, edge])
    return _Run(doubles, edges, incoming, factor, output, states, state_tracking)


def _indices(topology: Any, num_nodes: int) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
    check_indices(topology.edges, topology.line_edges, num_nodes)
    edges = np.asarray(topology.edges).tolist()
    incoming: list[list[tuple[int, int]]] = [[] for _ in edges]
    for line, (earlier, later) in enumerate(np.asarray(topology.line_edges).tolist()):
        incoming[later].append((line, earlier))
    return edges, incoming
