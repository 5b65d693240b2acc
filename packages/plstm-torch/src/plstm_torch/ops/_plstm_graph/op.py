"""The public op: arguments, dtypes, and the choice of a form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor

from plstm_config.options import check_implementation, check_kernels
from plstm_config.shapes import Sizes, check_plstm_graph
from plstm_torch.dtypes import accumulation_dtype, without_autocast
from plstm_torch.ops._arguments import check_tensors, common_dtype, scale_factor
from plstm_torch.ops._contract import contract
from plstm_torch.ops._exporting import is_exporting
from plstm_torch.ops._native import unsupported
from plstm_torch.ops._plstm_graph.compiled import (
    CompiledGraph,
    compiled_graph,
    index_tensors,
    takes_graphs,
    walk_compiled,
)
from plstm_torch.ops._plstm_graph.forms import walk_now
from plstm_torch.ops._plstm_graph.plan import LevelSchedule, level_schedule
from plstm_torch.ops._plstm_graph.triton.form import STATES
from plstm_torch.ops._triton import support

IMPLEMENTATIONS = ("auto", "recurrent", "parallel", "native", "triton")
# State-tracking dimensions of query, key, value, source, transition, mark, direct.
_TRAILING = (1, 1, 1, 3, 2, 3, 4)


def plstm_graph(
    query: Float[Tensor, "H N *DKJQ"],
    key: Float[Tensor, "H N *DKJK"],
    value: Float[Tensor, "H N *DVJV"],
    source: Float[Tensor, "H E *JTJKJV"],
    transition: Float[Tensor, "H L *JTJT"],
    mark: Float[Tensor, "H E *JOJQJT"],
    direct: Float[Tensor, "H N *JOJQJKJV"],
    topology: Any,
    *,
    initial_state: Float[Tensor, "H E DK DV *JT"] | None = None,
    return_last_state: bool = False,
    scale: float | None = None,
    implementation: str = "auto",
) -> Float[Tensor, "H N *DVJO"] | tuple[Float[Tensor, "H N *DVJO"], Float[Tensor, "H E DK DV *JT"]]:
    """Run pLSTM over a directed acyclic graph, or over a whole batch of graphs as one.

    With edge e from node n to node m::

        C_e = initial_e + sum over incoming e' of T_{e e'} C_{e'} + S_e (K_n ⊗ V_n)
        H_n = scale * Q_n (sum over incoming e of M_e C_e + D_n (K_n ⊗ V_n))

    Gates are scalars, or carry the state-tracking dimensions of the sequence and grid ops behind them if `query` is
    [H,N,DK,JQ]; then key is [H,N,DK,JK], value [H,N,DV,JV], source [H,E,JT,JK,JV], transition [H,L,JT,JT],
    mark [H,E,JO,JQ,JT], direct [H,N,JO,JQ,JK,JV], the output [H,N,DV,JO] and a state [H,E,DK,DV,JT].

    Any floating dtype: the inputs are promoted to a common dtype of at least float32, in which everything is computed.
    Gradients of any order exist for every input. Under `torch.compile` the arrays of the topology are inputs of the
    program, which serves every graph, and "auto" is decided when it runs.

    Args:
        query: [H,N,DK].
        key: [H,N,DK].
        value: [H,N,DV].
        source: one per edge [H,E].
        transition: one per line edge [H,L].
        mark: one per edge [H,E].
        direct: one per node [H,N].
        topology: a `plstm_config.topology.DagTopology`, or anything with `edges` [E,2], pairs (tail, head) in
            topological order, and `line_edges` [L,2], pairs (incoming, outgoing) of indices into `edges`. Index tensors
            are made once for each topology and device, and live as long as it.
        initial_state: what enters each edge from outside [H,E,DK,DV]; zero if None.
        return_last_state: also return the state of every edge.
        scale: factor of the output; 1 if None.
        implementation: "recurrent" (level by level over all graphs at once, memory linear in edges), "parallel" (one
            triangular solve per graph, quadratic in the edges of the largest graph), "native" (the first in kernels for
            CPUs, scalar gates), "triton" (in kernels for CUDA devices, JT up to 8), or "auto".

    Returns:
        Output [H,N,DV] in the dtype of `value`, or the pair of it and the states [H,E,DK,DV], float32 (float64 where
        that is the common dtype).

    Raises:
        TypeError: if an argument is no tensor, has no floating dtype, or `topology` lacks an attribute.
        ValueError: if a shape, a device, an index or a name is wrong, the edges are not in topological order, or
            there is no kernel for the call.

    Examples:
        >>> import torch
        >>> from plstm_config.topology import DagTopology
        >>> from plstm_torch.ops import plstm_graph
        >>> graph = DagTopology.from_edges(4, [(0, 1), (0, 2), (1, 3), (2, 3)])
        >>> query, key, value = (torch.randn(2, graph.num_nodes, size) for size in (5, 5, 3))
        >>> source, transition, mark = torch.rand(2, 4), torch.rand(2, len(graph.line_edges)), torch.rand(2, 4)
        >>> plstm_graph(query, key, value, source, transition, mark, torch.rand(2, 4), graph).shape
        torch.Size([2, 4, 3])

    Source:
        Equations 5 and 6 of the pLSTM paper; "parallel" is its equation 7.
    """
    named: dict[str, object] = {"query": query, "key": key, "value": value, "source": source, "transition": transition}
    named |= {"mark": mark, "direct": direct, "initial_state": initial_state}
    tensors = check_tensors(named)
    sizes = check_plstm_graph(
        query, key, value, source, transition, mark, direct, topology, initial_state=initial_state, scale=scale
    )
    check_implementation(implementation, IMPLEMENTATIONS)
    implementation = _kernels(implementation, tensors, sizes) or implementation
    dtype = accumulation_dtype(common_dtype(tensors))
    with without_autocast(query):
        arrays = [tensor.to(dtype) for tensor in tensors]
        state_tracking = "JT" in sizes
        if not state_tracking:
            trailing = (*_TRAILING, 1)
            arrays = [a.reshape(*a.shape, *[1] * count) for a, count in zip(arrays, trailing, strict=False)]
        output, states = _run(arrays, topology, sizes, return_last_state, scale, implementation)
        if not state_tracking:
            output, states = output.squeeze(-1), None if states is None else states.squeeze(-1)
        output = output.to(value.dtype)
    return (output, states) if states is not None else output


def _kernels(implementation: str, tensors: list[Tensor], sizes: Sizes) -> str | None:
    """The kernels that a call goes to: "native", "triton" or None.

    Raises:
        ValueError: if they are asked for by name, and cannot take the call.
    """
    if implementation == "native" or (implementation == "auto" and tensors[0].device.type == "cpu"):
        reason = unsupported("plstm_graph", tensors[0], {name: sizes[name] for name in sizes if name.startswith("J")})
        if implementation == "native":
            check_kernels("plstm_graph", implementation, reason)
        return "native" if reason is None else None
    by_choice = implementation == "auto" and support.taken_by_auto(tensors[0]) and not is_exporting()
    if implementation != "triton" and not by_choice:
        return None
    dtypes = [tensor.dtype for tensor in tensors]
    reason = support.unsupported("plstm_graph", tensors[0].device, dtypes, sizes, states=STATES)
    if implementation == "triton":
        check_kernels("plstm_graph", implementation, reason)
    return "triton" if reason is None else None


def _run(
    arrays: list[Tensor], topology: Any, sizes: Sizes, return_states: bool, scale: float | None, implementation: str
) -> tuple[Tensor, Tensor | None]:
    query, key, value, source, transition, mark, direct, *initial = arrays
    factor = scale_factor(scale, 1.0, query.device)
    graph: LevelSchedule | CompiledGraph
    if compiling := takes_graphs():
        graph = compiled_graph(index_tensors(topology, sizes["N"]), query.device)
    else:
        graph = level_schedule(topology, sizes["N"], query.device)
    own = _read_own(query, key, value, factor * direct)
    initial = [_reordered(state.movedim(-1, 2), graph.edges) for state in initial]
    source, mark = _reordered(source, graph.edges), factor * _reordered(mark, graph.edges)
    inputs = query, key, value, source, _reordered(transition, graph.lines), mark
    walk: Callable[..., tuple[Tensor, Tensor | None]] = walk_compiled if compiling else walk_now
    output, states = walk(graph, implementation, return_states, own, inputs, initial)
    return output, None if states is None else _reordered(states, graph.positions).movedim(2, -1)


def _read_own(query: Tensor, key: Tensor, value: Tensor, direct: Tensor) -> Tensor:
    """Q D (K ⊗ V) at every node: [H,N,DV,JO]."""
    scores = contract("hndq,hndk->hnqk", query, key)
    return contract("hndv,hnvo->hndo", value, contract("hnoqkv,hnqk->hnvo", direct, scores))


def _reordered(tensor: Tensor, order: Tensor | None) -> Tensor:
    return tensor if order is None else tensor.index_select(1, order)
