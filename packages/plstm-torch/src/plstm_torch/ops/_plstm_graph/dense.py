"""pLSTM on graphs by one triangular solve for every graph: best for many small graphs."""

from __future__ import annotations

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import Tensors
from plstm_torch.ops._plstm_graph.layout import DenseLayout


def run_dense(inputs: Tensors, layout: DenseLayout) -> Tensor:
    """What the nodes read from the edges, by gating matrices from node to node.

    Args:
        inputs: query [H,N,DK,JQ], key [H,N,DK,JK], value [H,N,DV,JV], source [H,E,JT,JK,JV], transition [H,L,JT,JT],
            mark [H,E,JO,JQ,JT]; edges and line edges in the order of the schedule.
        layout: of the schedule.

    Returns:
        [H,N,DV,JO].
    """
    query, key, value, source, transition, mark = inputs
    g, n, e = layout.num_graphs, layout.max_nodes, layout.max_edges
    padded = _scatter(source, layout.sources, g * e * n).unflatten(1, (g, e, n))
    written = padded.permute(0, 1, 2, 4, 3, 5, 6).flatten(4).flatten(2, 3)  # [H,G,(E JT),(N JK JV)]
    padded = _scatter(mark, layout.marks, g * n * e).unflatten(1, (g, n, e))
    read = padded.permute(0, 1, 2, 4, 5, 3, 6).flatten(5).flatten(2, 4)  # [H,G,(N JO JQ),(E JT)]
    gating = read @ _solve(transition, layout, written)
    jk, jv, jo, jq = source.shape[3], source.shape[4], mark.shape[2], mark.shape[3]
    q, k, v = (_scatter(tensor, layout.nodes, g * n).unflatten(1, (g, n)) for tensor in (query, key, value))
    scores = torch.einsum("hgxdq,hgydk->hgxqyk", q, k)
    if jq == jk == 1:
        attention = gating.unflatten(-1, (n, jv)).unflatten(2, (n, jo)) * scores.view(*scores.shape[:3], 1, n, 1)
    else:
        gates = gating.unflatten(-1, (n, jk, jv)).unflatten(2, (n, jo, jq))
        attention = torch.einsum("hgxoqykv,hgxqyk->hgxoyv", gates, scores)
    values = v.movedim(-1, 3).flatten(2, 3)  # [H,G,(N JV),DV]
    output = attention.flatten(4).flatten(2, 3) @ values
    return output.unflatten(2, (n, jo)).flatten(1, 2).index_select(1, layout.nodes).mT


def solve_states(entering: Tensor, transition: Tensor, layout: DenseLayout) -> Tensor:
    """The states of all edges from what enters each of them.

    Args:
        entering: [H,E,JT,DK,DV].
        transition: [H,L,JT,JT].
        layout: of the schedule.

    Returns:
        [H,E,JT,DK,DV].
    """
    g, e = layout.num_graphs, layout.max_edges
    padded = _scatter(entering, layout.edges, g * e).unflatten(1, (g, e))
    solved = _solve(transition, layout, padded.flatten(4).flatten(2, 3))
    return solved.unflatten(2, (e, -1)).flatten(1, 2).index_select(1, layout.edges).view_as(entering)


def _solve(transition: Tensor, layout: DenseLayout, right: Tensor) -> Tensor:
    """(I - T)^-1 times `right` [H,G,(E JT),...]: unit triangular, because edges stand in topological order."""
    g, e = layout.num_graphs, layout.max_edges
    padded = _scatter(transition, layout.lines, g * e * e).unflatten(1, (g, e, e))
    matrix = padded.permute(0, 1, 2, 4, 3, 5).flatten(4).flatten(2, 3)
    return torch.linalg.solve_triangular(-matrix, right, upper=False, unitriangular=True)


def _scatter(tensor: Tensor, places: Tensor, size: int) -> Tensor:
    """[H,R,...] to [H,size,...], zero where nothing is placed."""
    return tensor.new_zeros(tensor.shape[0], size, *tensor.shape[2:]).index_add(1, places, tensor)
