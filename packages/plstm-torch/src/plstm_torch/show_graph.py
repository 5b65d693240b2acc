"""How the signal of one node spreads over a DAG in P- and in D-mode, as a picture."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from plstm_config.topology import DagTopology, Mode
from plstm_torch.ops import plstm_graph
from plstm_torch.optional import require

_INK, _FAINT, _IDLE = "#1b2430", "#6b7684", "#dfe3e8"
_FLOOR = 1e-2
_PALETTES = {"P": ["#b5d7e3", "#2f86a8", "#0f2f52"], "D": ["#fad7ac", "#dd7238", "#5a1f2b"]}
_HEADINGS = {
    "P": ("P-mode: directed propagation", "each node splits what arrives: the total never grows"),
    "D": ("D-mode: diffusive distribution", "at most one path to each edge, full strength along it"),
}


@dataclass(frozen=True)
class Spread:
    """What one node's signal does to a graph.

    Attributes:
        nodes: what each node reads [N].
        edges: what each edge carries [E], in the order of the topology.
    """

    nodes: Float[Tensor, " N"]
    edges: Float[Tensor, " E"]


def spread_signal(topology: DagTopology, node: int) -> Spread:
    r"""Compute what every node reads when one node emits, with gates at the limit of stability.

    P-mode: every node hands what arrives on in equal parts, :math:`T_{ee'} = S_e = 1 / \text{out-degree}`. D-mode:
    :math:`T_{ee'} = S_e = 1` on the pruned line graph. Query, key and marks are one.

    Args:
        topology: the graph, in either mode.
        node: the node that emits.

    Returns:
        Responses, float64.

    Raises:
        ValueError: if there is no such node.
    """
    if not 0 <= node < topology.num_nodes:
        raise ValueError(f"node: expected a node from 0 to {topology.num_nodes - 1}, got {node}")
    ones = torch.ones(1, topology.num_nodes, 1, dtype=torch.float64)
    value = torch.zeros_like(ones)
    value[0, node] = 1.0
    tails = topology.edges[:, 0]
    source = torch.ones(1, len(tails), dtype=torch.float64)
    if topology.mode == "P":
        source = 1.0 / torch.from_numpy(topology.out_degree[tails].astype(float))[None]
    transition = source[:, torch.from_numpy(topology.line_edges[:, 1].copy())]
    marks = torch.ones(1, len(tails), dtype=torch.float64)
    result: Any = plstm_graph(
        ones, ones, value, source, transition, marks, ones[..., 0], topology, return_last_state=True
    )
    output, states = result
    return Spread(output[0, :, 0], states[0, :, 0, 0])


def layered_graph(num_layers: int, width: int, seed: int) -> tuple[DagTopology, Float[ndarray, "N 2"]]:
    """Draw a DAG whose edges lead from layer to layer, between nodes that lie near each other.

    Args:
        num_layers: layers of nodes, at least 2.
        width: nodes in a layer, at least 1.
        seed: of the edges and places.

    Returns:
        The topology in P-mode, and the place (x, y) of every node.

    Raises:
        ValueError: if a number is too small.
    """
    if num_layers < 2:
        raise ValueError(f"layers: expected at least 2, got {num_layers}")
    if width < 1:
        raise ValueError(f"width: expected at least 1, got {width}")
    random = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(np.arange(num_layers), np.arange(width), indexing="ij"), -1).reshape(-1, 2)
    edges = []
    for layer in range(num_layers - 1):
        for row in range(width):
            near = [other for other in (row - 1, row, row + 1) if 0 <= other < width]
            chosen = random.permutation(near)[: random.integers(1, len(near) + 1)]
            edges += [(layer * width + row, (layer + 1) * width + int(other)) for other in sorted(chosen)]
    jitter = random.uniform(-0.18, 0.18, places.shape)
    return DagTopology.from_edges(num_layers * width, edges), places + jitter


def graph_figure(*, num_layers: int = 9, width: int = 7, seed: int = 0) -> Any:
    """Draw the same graph twice: the signal of one node of the first layer in P-mode and in D-mode.

    Args:
        num_layers: layers of nodes.
        width: nodes in a layer.
        seed: of the graph.

    Returns:
        A matplotlib figure.

    Raises:
        UserError: if matplotlib is not installed.
        ValueError: if an option is out of range.
    """
    topology, places = layered_graph(num_layers, width, seed)
    figure = require("matplotlib.figure", "matplotlib").Figure(figsize=(11.5, 4.6), dpi=160, layout="constrained")
    modes: tuple[Mode, ...] = ("P", "D")
    for axes, mode in zip(figure.subplots(1, 2), modes, strict=True):
        _draw_panel(figure, axes, topology.with_mode(mode), places, node=width // 2)
    return figure


def _draw_panel(figure: Any, axes: Any, topology: DagTopology, places: ndarray, node: int) -> None:
    colors = require("matplotlib.colors", "matplotlib")
    lines = require("matplotlib.collections", "matplotlib")
    cm = require("matplotlib.cm", "matplotlib")
    spread = spread_signal(topology, node)
    palette = colors.LinearSegmentedColormap.from_list("response", _PALETTES[topology.mode])
    shades = cm.ScalarMappable(colors.LogNorm(_FLOOR, 1.0), palette)
    carried, read = spread.edges.numpy(), spread.nodes.numpy()
    order = np.argsort(carried, kind="stable")  # what carries most lies on top
    edge_colors = [shades.to_rgba(value) if value > 0 else _IDLE for value in carried[order]]
    widths = np.where(carried[order] > 0, 1.0 + 2.2 * np.sqrt(np.clip(carried[order], 0, 1)), 0.8)
    axes.add_collection(lines.LineCollection(places[topology.edges[order]], colors=edge_colors, linewidths=widths))
    node_colors = [shades.to_rgba(value) if value > 0 else _IDLE for value in read]
    axes.scatter(*places.T, c=node_colors, s=34, zorder=3, edgecolors="white", linewidths=0.7)
    axes.scatter(*places[node], s=110, zorder=4, facecolors="none", edgecolors=_INK, linewidths=1.4)
    heading, meaning = _HEADINGS[topology.mode]
    axes.set_title(heading, color=_INK, fontsize=11, loc="left", pad=20)
    axes.text(0, 1.025, meaning, transform=axes.transAxes, color=_FAINT, fontsize=8.5)
    axes.set_axis_off()
    bar = figure.colorbar(shades, ax=axes, shrink=0.75, pad=0.01, extend="both" if read.max() > 1 else "min")
    bar.set_label("response to a unit impulse", color=_FAINT, fontsize=8)
    bar.ax.tick_params(labelsize=7, colors=_FAINT)
    bar.outline.set_visible(False)
