"""What one node of a graph of one's own hears of the others through the gates of a trained model."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor, nn

from plstm_config.topology import DagTopology
from plstm_torch.layers.graph_indices import Graph, as_topology
from plstm_torch.layers.plstm_graph import GraphGates, pLSTMGraphEdgeLayer, pLSTMGraphLayer
from plstm_torch.optional import require

_INK, _FAINT, _IDLE = "#1b2430", "#6b7684", "#dfe3e8"
_FLOOR = 1e-3
_PALETTES = {"P": ["#b5d7e3", "#2f86a8", "#0f2f52"], "D": ["#fad7ac", "#dd7238", "#5a1f2b"]}
_SWEEPS = 8
_LARGEST = 400


@dataclass(frozen=True)
class Hearing:
    """What one node hears through the gates of a layer.

    Attributes:
        layer: dotted name of the layer.
        gates: source, transition and mark of the layer on this graph, and the topology that they are aligned with; that
            of a layer which runs against the edges is reversed.
        edges: how strongly the node hears the state of each edge, by head, with its sign [H, E].
        nodes: how strongly the node hears the input of each other node, by head, with its sign [H, N].
    """

    layer: str
    gates: GraphGates
    edges: Float[Tensor, "H E"]
    nodes: Float[Tensor, "H N"]

    @property
    def topology(self) -> DagTopology:
        """The graph as the layer reads it."""
        return cast(DagTopology, self.gates.topology)  # outside of compiled programs


def graph_gates(
    model: nn.Module,
    x: Float[Tensor, "N D"],
    graph: Graph,
    edge_attr: Float[Tensor, "E De"] | None = None,
    *,
    node: int,
) -> list[Hearing]:
    r"""Compute how strongly one node hears every edge and every other node through the gates of each layer.

    Queries and keys are taken as one, so that what is left is a row of the layer's gating matrix
    :math:`M (I - T)^{-1} S`: with :math:`h_e = M_e [e \text{ ends in the node}] + \sum_{e'} T_{e'e} h_{e'}` for the
    edges, a node n is heard by :math:`\sum_{e \text{ leaves } n} S_e h_e`.

    Args:
        model: a graph model, block or layer, called as `model(x, graph, edge_attr)`.
        x: node features [N, D].
        graph: a topology, or an edge_index [2, E].
        edge_attr: edge features, where the model reads any.
        node: the node that listens.

    Returns:
        One entry for each layer on graphs, in the order in which they run.

    Raises:
        TypeError: if the model has no layers on graphs, or the node is no integer.
        ValueError: if there is no such node, or sizes do not fit.

    Examples:
        >>> import torch
        >>> from plstm_torch.pyg import pLSTMConv
        >>> from plstm_torch.show_gates import graph_gates
        >>> conv = pLSTMConv(4, 8, heads=2)
        >>> (heard,) = graph_gates(conv.layer, torch.rand(3, 4), torch.tensor([[0, 1], [1, 2]]), node=2)
        >>> heard.nodes.shape, heard.gates.source.shape
        (torch.Size([2, 3]), torch.Size([2, 2]))
    """
    names = {
        each: name for name, each in model.named_modules() if isinstance(each, pLSTMGraphLayer | pLSTMGraphEdgeLayer)
    }
    if not names:
        raise TypeError(f"model: expected one with layers on graphs, got {type(model).__name__}")
    if isinstance(node, bool) or not isinstance(node, int | np.integer):
        raise TypeError(f"node: expected an integer, got {type(node).__name__}")
    if not 0 <= node < len(x):
        raise ValueError(f"node: expected a node from 0 to {len(x) - 1}, got {node}")
    found: list[Hearing] = []

    def listen(layer: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        given = dict(zip(("x", "graph", "edge_attr"), inputs, strict=False)) | keywords
        gates = layer._gates(given["x"], given["graph"], given.get("edge_attr"))
        found.append(Hearing(names[layer], gates, *_heard(gates, node)))

    topology = as_topology(graph, len(x))
    handles = [layer.register_forward_pre_hook(listen, with_kwargs=True) for layer in names]
    try:
        with torch.no_grad(), _as_written():
            model(x, topology, edge_attr)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _as_written() -> Any:
    """Let a compiled model run as it is written: a program has neither a graph to look at nor numbers."""
    # where the compiler is not loaded nothing is compiled, and to load it takes longer than all of a picture
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _heard(gates: GraphGates, node: int) -> tuple[Tensor, Tensor]:
    """From the node back along the line edges, last ones first: what stands at an edge is complete when it is read."""
    topology = cast(DagTopology, gates.topology)
    source, transition, mark = (gate.double().cpu() for gate in (gates.source, gates.transition, gates.mark))
    edges = torch.where(torch.from_numpy(topology.head == node), mark, 0.0)
    for line, (incoming, outgoing) in reversed(list(enumerate(topology.line_edges.tolist()))):
        edges[:, incoming] += transition[:, line] * edges[:, outgoing]
    tails = torch.from_numpy(topology.tail.copy())
    nodes = edges.new_zeros(len(edges), topology.num_nodes).index_add(1, tails, source * edges)
    return edges, nodes


def near_nodes(topology: DagTopology, node: int, largest: int) -> Int[ndarray, " M"]:
    """The nodes around one, whatever the direction of the edges: nearest first, until there are enough.

    Args:
        topology: the graph.
        node: where to begin.
        largest: how many nodes at most.

    Returns:
        Their numbers, rising.
    """
    taken = np.zeros(topology.num_nodes, bool)
    front, order = np.array([node]), [node]
    taken[node] = True
    while len(front) and len(order) < largest:
        ends = topology.edges[np.isin(topology.edges, front).any(1)]
        front = np.setdiff1d(ends, np.flatnonzero(taken))[: largest - len(order)]
        taken[front] = True
        order += front.tolist()
    return np.sort(np.array(order))


def layered_places(topology: DagTopology) -> Float[ndarray, "N 2"]:
    """Places for the nodes of a DAG: columns by the longest path to each, rows by the means of its neighbours.

    Args:
        topology: the graph.

    Returns:
        A place (x, y) for each node.
    """
    depth = np.zeros(topology.num_nodes, np.int64)
    for tail, head in topology.edges.tolist():  # in topological order
        depth[head] = max(depth[head], depth[tail] + 1)
    rows = np.zeros(topology.num_nodes)
    columns = [np.flatnonzero(depth == each) for each in range(int(depth.max(initial=-1)) + 1)]
    for members in columns:
        rows[members] = _spread(members)
    degree = np.maximum(topology.in_degree + topology.out_degree, 1)
    for _ in range(_SWEEPS):
        means = np.zeros(topology.num_nodes)
        np.add.at(means, topology.tail, rows[topology.head])
        np.add.at(means, topology.head, rows[topology.tail])
        means = np.where(topology.in_degree + topology.out_degree > 0, means / degree, rows)
        for members in columns:
            ordered = members[np.argsort(means[members], kind="stable")]
            rows[ordered] = _spread(ordered)
    return np.stack([depth, rows], 1)


def _spread(members: ndarray) -> ndarray:
    return np.arange(len(members)) - (len(members) - 1) / 2


def gates_figure(
    model: nn.Module,
    x: Float[Tensor, "N D"],
    graph: Graph,
    edge_attr: Float[Tensor, "E De"] | None = None,
    *,
    node: int,
    largest: int = _LARGEST,
    labels: Sequence[str] | None = None,
) -> Any:
    """Draw what one node hears: a row for each layer, a panel for each head.

    Args:
        model: as in `graph_gates`.
        x: node features [N, D].
        graph: a topology, or an edge_index [2, E].
        edge_attr: edge features, where the model reads any.
        node: the node that listens.
        largest: how many nodes are drawn: the one that listens and those around it.
        labels: a name for each node, shown of those that are heard best.

    Returns:
        A matplotlib figure.

    Raises:
        UserError: if matplotlib is not installed.
        TypeError: if the model has no layers on graphs, or the node is no integer.
        ValueError: if there is no such node, sizes do not fit, or fewer than one node is to be drawn.
    """
    if largest < 1:
        raise ValueError(f"largest: expected at least 1, got {largest}")
    if labels is not None and len(labels) != len(x):
        raise ValueError(f"labels: expected one for each of N={len(x)} nodes, got {len(labels)}")
    hearings = graph_gates(model, x, graph, edge_attr, node=node)
    topology = cast(DagTopology, as_topology(graph, len(x)))
    shown = near_nodes(topology, node, largest)
    places = np.full((topology.num_nodes, 2), np.nan)
    places[shown] = layered_places(_part(topology, shown))
    heads = max(len(hearing.nodes) for hearing in hearings)
    figure = require("matplotlib.figure", "matplotlib").Figure(
        figsize=(2.9 * heads + 1.2, 2.3 * len(hearings) + 0.5), dpi=140, layout="constrained"
    )
    grid = figure.subplots(len(hearings), heads, squeeze=False)
    for row, hearing in zip(grid, hearings, strict=True):
        for axes in row:
            axes.set_axis_off()
        shades = _shades(hearing.topology.mode)
        for head, axes in zip(range(len(hearing.nodes)), row, strict=False):
            _draw(axes, hearing, head, places, node, shades, labels)
            axes.set_title(f"{hearing.layer or 'layer'}\n{hearing.topology.mode}, head {head}", color=_INK, fontsize=6)
        bar = figure.colorbar(shades, ax=list(row), shrink=0.8, pad=0.01, extend="both")
        bar.ax.tick_params(labelsize=5, colors=_FAINT)
        bar.outline.set_visible(False)
    count = "" if len(shown) == topology.num_nodes else f", {len(shown)} of {topology.num_nodes} nodes"
    name = node if labels is None else labels[node]
    figure.suptitle(
        f"What node {name} hears of the others, share of the loudest{count}", color=_INK, fontsize=9, parse_math=False
    )
    return figure


def _part(topology: DagTopology, nodes: ndarray) -> DagTopology:
    kept = topology.edges[np.isin(topology.edges, nodes).all(1)]
    return DagTopology.from_edges(len(nodes), np.searchsorted(nodes, kept))


def _shades(mode: str) -> Any:
    colors, cm = require("matplotlib.colors", "matplotlib"), require("matplotlib.cm", "matplotlib")
    return cm.ScalarMappable(
        colors.LogNorm(_FLOOR, 1.0), colors.LinearSegmentedColormap.from_list("heard", _PALETTES[mode])
    )


def _draw(
    axes: Any, hearing: Hearing, head: int, places: ndarray, node: int, shades: Any, labels: Sequence[str] | None
) -> None:
    carried, read = (_share(values[head]) for values in (hearing.edges, hearing.nodes))
    ends = hearing.topology.edges
    order = np.argsort(carried, kind="stable")  # what is heard best lies on top
    order = order[np.isfinite(places[ends[order]]).all((1, 2))]
    colors = [shades.to_rgba(value) if value > 0 else _IDLE for value in carried[order]]
    widths = np.where(carried[order] > 0, 0.8 + 1.8 * np.sqrt(carried[order]), 0.6)
    lines = require("matplotlib.collections", "matplotlib")
    axes.add_collection(lines.LineCollection(places[ends[order]], colors=colors, linewidths=widths))
    seen = np.flatnonzero(np.isfinite(places[:, 0]))
    dots = [shades.to_rgba(value) if value > 0 else _IDLE for value in read[seen]]
    size = float(np.clip(1200 / max(len(seen), 1), 4, 34))
    axes.scatter(*places[seen].T, c=dots, s=size, zorder=3, edgecolors="white", linewidths=0.4)
    axes.scatter(*places[node], s=size + 50, zorder=4, facecolors="none", edgecolors=_INK, linewidths=1.2)
    for best in seen[np.argsort(-read[seen], kind="stable")][:3]:
        if read[best] > 0 and labels is not None:
            style = {"fontsize": 5, "color": _INK, "parse_math": False}  # names are the user's, dollars and all
            axes.annotate(labels[best], places[best], xytext=(3, 3), textcoords="offset points", **style)


def _share(values: Tensor) -> ndarray:
    """Of the largest one, without sign; zero where there is none."""
    size = values.abs()
    return (size / size.max().clamp(min=1e-300)).numpy() if size.numel() else size.numpy()
