"""pLSTM on graphs by one triangular solve for every graph: best for many small graphs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import CarefulForm, Tensors
from plstm_torch.ops._plstm_graph.layout import DenseLayout


class DenseForm:
    """What the nodes read from the edges by gating matrices from node to node, with a hand-written backward pass.

    The inputs of every function, edges and line edges in the order of the schedule:

        query: [H,N,DK,JQ].
        key: [H,N,DK,JK].
        value: [H,N,DV,JV].
        source: [H,E,JT,JK,JV].
        transition: [H,L,JT,JT].
        mark: [H,E,JO,JQ,JT].

    The output: [H,N,DV,JO]. Products with padded matrices let what is not finite reach every node of its graph, so
    there is a careful form; see `FastForm`.
    """

    num_outputs = 1

    def __init__(self, layout: DenseLayout, careful: CarefulForm) -> None:
        self.careful = careful
        self.formula: Callable[..., Tensors] = lambda *inputs: _read(layout, *inputs)[:1]
        self.forward: Callable[..., tuple[Tensors, Tensors]] = partial(_read_forward, layout)
        self.gradients: Callable[[Tensors, Tensors, Tensors], Tensors] = partial(_read_gradients, layout)
        self.layout = layout

    def saved_shapes(self, *inputs: Tensor) -> list[tuple[int, ...]]:
        """Shapes of what `forward` saves: solution and gating, see `_read`."""
        source, mark = inputs[3], inputs[5]
        heads, _, jt, jk, jv = source.shape
        graphs, n, e = self.layout.num_graphs, self.layout.max_nodes, self.layout.max_edges
        return [(heads, graphs, e * jt, n * jk * jv), (heads, graphs, n, *mark.shape[2:4], n, jk, jv)]


class DenseStatesForm:
    """The same function of the same inputs as `LevelForm` with states, by one triangular solve for every graph."""

    num_outputs = 2

    def __init__(self, layout: DenseLayout, careful: CarefulForm) -> None:
        self.careful = careful
        self.formula: Callable[..., Tensors] = partial(_states, layout)
        self.forward: Callable[..., tuple[Tensors, Tensors]] = partial(_states_forward, layout)
        self.gradients: Callable[[Tensors, Tensors, Tensors], Tensors] = partial(_states_gradients, layout)


def _read(
    layout: DenseLayout, query: Tensor, key: Tensor, value: Tensor, source: Tensor, transition: Tensor, mark: Tensor
) -> Tensors:
    """Output, solution [H,G,(E JT),(N JK JV)] and gating [H,G,N,JO,JQ,N,JK,JV]."""
    n, (jk, jv), (jo, jq) = layout.max_nodes, source.shape[3:], mark.shape[2:4]
    solution = _solve(_matrix(transition, layout), _written(source, layout))
    gating = (_reading(mark, layout) @ solution).unflatten(-1, (n, jk, jv)).unflatten(2, (n, jo, jq))
    q, k, v = (_nodes_by_entry(tensor, layout) for tensor in (query, key, value))
    scores = (q @ k.mT).unflatten(-1, (n, jk)).unflatten(2, (n, jq))
    output = _attention(gating, scores).flatten(4).flatten(2, 3) @ v
    return output.unflatten(2, (n, jo)).flatten(1, 2).index_select(1, layout.nodes).mT, solution, gating


def _attention(gating: Tensor, scores: Tensor) -> Tensor:
    """Gating times scores [H,G,N,JQ,N,JK], summed over JQ and JK: [H,G,N,JO,N,JV]."""
    if scores.shape[3] == scores.shape[5] == 1:
        return gating[:, :, :, :, 0, :, 0] * scores[:, :, :, :, :, :1]
    return torch.einsum("hgxoqykv,hgxqyk->hgxoyv", gating, scores)


def _read_forward(layout: DenseLayout, *inputs: Tensor) -> tuple[Tensors, Tensors]:
    output, *saved = _read(layout, *inputs)
    return (output,), tuple(saved)


def _read_gradients(layout: DenseLayout, inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    query, key, value, source, transition, mark = inputs
    (solution, gating), n, (jo, jq), (jk, jv) = saved, layout.max_nodes, mark.shape[2:4], source.shape[3:]
    q, k, v = (_nodes_by_entry(tensor, layout) for tensor in (query, key, value))
    scores = (q @ k.mT).unflatten(-1, (n, jk)).unflatten(2, (n, jq))
    d_output = _nodes_by_entry(cotangents[0], layout)
    d_v = _attention(gating, scores).flatten(4).flatten(2, 3).mT @ d_output
    d_attention = (d_output @ v.mT).unflatten(-1, (n, jv)).unflatten(2, (n, jo))
    if jo == jq == jk == jv == 1:
        d_scores = (d_attention * gating[:, :, :, :, 0, :, 0]).flatten(4).flatten(2, 3)
        d_gating = (d_attention * scores).flatten(4).flatten(2, 3)
    else:
        d_scores = torch.einsum("hgxoyv,hgxoqykv->hgxqyk", d_attention, gating).flatten(4).flatten(2, 3)
        d_gating = torch.einsum("hgxoyv,hgxqyk->hgxoqykv", d_attention, scores).flatten(5).flatten(2, 4)
    d_q, d_k = d_scores @ k, d_scores.mT @ q
    d_written = _solve_transposed(_matrix(transition, layout), _reading(mark, layout).mT @ d_gating)
    return (
        *(_nodes_back(tensor, layout, j) for tensor, j in ((d_q, jq), (d_k, jk), (d_v, jv))),
        _written_back(d_written, source, layout),
        _matrix_back(d_written @ solution.mT, transition, layout),
        _reading_back(d_gating @ solution.mT, mark, layout),
    )


def _states(
    layout: DenseLayout, key: Tensor, written: Tensor, transition: Tensor, reading: Tensor, *initial: Tensor
) -> Tensors:
    """What is read [H,E,JO,DV], and the states [H,E,JT,DK,DV]."""
    entering = key.unsqueeze(2) @ written
    if initial:
        entering = entering + initial[0]
    solved = _solve(_matrix(transition, layout), _edges_by_entry(entering, layout))
    states = _edges_back(solved, entering, layout)
    return reading @ states.flatten(2, 3), states


def _states_forward(layout: DenseLayout, *inputs: Tensor) -> tuple[Tensors, Tensors]:
    read, states = _states(layout, *inputs)
    return (read, states), (states.clone(),)


def _states_gradients(layout: DenseLayout, inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    key, written, transition, reading, *initial = inputs
    (states,), (d_read, d_states) = saved, cotangents
    d_states = d_states + (reading.mT @ d_read).view_as(states)
    solved = _solve_transposed(_matrix(transition, layout), _edges_by_entry(d_states, layout))
    d_entering = _edges_back(solved, states, layout)
    d_matrix = solved @ _edges_by_entry(states, layout).mT
    return (
        (d_entering @ written.mT).sum(2),
        key.unsqueeze(2).mT @ d_entering,
        _matrix_back(d_matrix, transition, layout),
        d_read @ states.flatten(2, 3).mT,
        *([d_entering] if initial else []),
    )


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """(I - T)^-1 times `right` [H,G,(E JT),...]: unit triangular, because edges stand in topological order."""
    return torch.linalg.solve_triangular(-matrix, right, upper=False, unitriangular=True)


def _solve_transposed(matrix: Tensor, right: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(-matrix.mT, right, upper=True, unitriangular=True)


def _matrix(transition: Tensor, layout: DenseLayout) -> Tensor:
    """T of every graph [H,G,(E JT),(E JT)]."""
    g, e = layout.num_graphs, layout.max_edges
    padded = _scatter(transition, layout.lines, g * e * e).unflatten(1, (g, e, e))
    return padded.permute(0, 1, 2, 4, 3, 5).flatten(4).flatten(2, 3)


def _matrix_back(matrix: Tensor, transition: Tensor, layout: DenseLayout) -> Tensor:
    e, jt = layout.max_edges, transition.shape[-1]
    padded = matrix.unflatten(3, (e, jt)).unflatten(2, (e, jt)).permute(0, 1, 2, 4, 3, 5)
    return padded.flatten(1, 3).index_select(1, layout.lines)


def _written(source: Tensor, layout: DenseLayout) -> Tensor:
    """S of every graph [H,G,(E JT),(N JK JV)]."""
    g, n, e = layout.num_graphs, layout.max_nodes, layout.max_edges
    padded = _scatter(source, layout.sources, g * e * n).unflatten(1, (g, e, n))
    return padded.permute(0, 1, 2, 4, 3, 5, 6).flatten(4).flatten(2, 3)


def _written_back(written: Tensor, source: Tensor, layout: DenseLayout) -> Tensor:
    jt, jk, jv = source.shape[2:]
    padded = written.unflatten(3, (layout.max_nodes, jk, jv)).unflatten(2, (layout.max_edges, jt))
    return padded.permute(0, 1, 2, 4, 3, 5, 6).flatten(1, 3).index_select(1, layout.sources)


def _reading(mark: Tensor, layout: DenseLayout) -> Tensor:
    """M of every graph [H,G,(N JO JQ),(E JT)]."""
    g, n, e = layout.num_graphs, layout.max_nodes, layout.max_edges
    padded = _scatter(mark, layout.marks, g * n * e).unflatten(1, (g, n, e))
    return padded.permute(0, 1, 2, 4, 5, 3, 6).flatten(5).flatten(2, 4)


def _reading_back(reading: Tensor, mark: Tensor, layout: DenseLayout) -> Tensor:
    jo, jq, jt = mark.shape[2:]
    padded = reading.unflatten(3, (layout.max_edges, jt)).unflatten(2, (layout.max_nodes, jo, jq))
    return padded.permute(0, 1, 2, 5, 3, 4, 6).flatten(1, 3).index_select(1, layout.marks)


def _nodes_by_entry(tensor: Tensor, layout: DenseLayout) -> Tensor:
    """[H,N,D,J] to [H,G,(N J),D]."""
    padded = _scatter(tensor.mT, layout.nodes, layout.num_graphs * layout.max_nodes)
    return padded.unflatten(1, (layout.num_graphs, layout.max_nodes)).flatten(2, 3)


def _nodes_back(tensor: Tensor, layout: DenseLayout, entries: int) -> Tensor:
    return tensor.unflatten(2, (layout.max_nodes, entries)).flatten(1, 2).index_select(1, layout.nodes).mT


def _edges_by_entry(states: Tensor, layout: DenseLayout) -> Tensor:
    """[H,E,JT,DK,DV] to [H,G,(E JT),(DK DV)]."""
    padded = _scatter(states, layout.edges, layout.num_graphs * layout.max_edges)
    return padded.unflatten(1, (layout.num_graphs, layout.max_edges)).flatten(4).flatten(2, 3)


def _edges_back(solved: Tensor, states: Tensor, layout: DenseLayout) -> Tensor:
    """[H,G,(E JT),(DK DV)] to the shape of `states`."""
    return solved.unflatten(2, (layout.max_edges, -1)).flatten(1, 2).index_select(1, layout.edges).view_as(states)


def _scatter(tensor: Tensor, places: Tensor, size: int) -> Tensor:
    """[H,R,...] to [H,size,...], zero where nothing is placed."""
    return tensor.new_zeros(tensor.shape[0], size, *tensor.shape[2:]).index_add(1, places, tensor)
