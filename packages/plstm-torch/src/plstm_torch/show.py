"""The receptive field of a P and a D layer as a picture, in the manner of the paper's figure 1."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from plstm_config.options import check_choice
from plstm_torch.ops import plstm_2d_oriented
from plstm_torch.optional import require

_INK, _FAINT, _LINE, _NODE = "#1b2430", "#6b7684", "#d1495b", "#1b2430"
_FLOOR = 1e-3
_CORNER, _MIDDLE = (0.06, 0.06), (0.5, 0.5)
_FLIPS = ((1, 1), (-1, 1), (1, -1), (-1, -1))
_D_PANELS = (("no decay", (1.0, 1.0)), ("even decay", (0.94, 0.94)), ("uneven decay", (0.98, 0.86)))
_PALETTES = {
    "P": ["#ffffff", "#e6f0f5", "#b5d7e3", "#6fb3c9", "#2f86a8", "#175a80", "#0f2f52"],
    "D": ["#ffffff", "#fdf1e3", "#fad7ac", "#f3a862", "#dd7238", "#a8432c", "#5a1f2b"],
}


@dataclass(frozen=True)
class Field:
    """What one panel shows: gates that are the same at every node, and where the source stands.

    Attributes:
        title: first line above the panel.
        note: second line above the panel, the gates.
        source: node (x, y) that emits, as shares of the grid's side.
        mode: "P" or "D".
        transitions: for each orientation the pair of transitions along X and along Y.
        lines: for each shown orientation the direction (x, y) in which the signal travels; P-mode only.
    """

    title: str
    note: str
    source: tuple[float, float]
    mode: str
    transitions: tuple[tuple[float, float], ...]
    lines: tuple[tuple[float, float], ...] = ()


def impulse_response(
    size: int, source: tuple[int, int], mode: str, transitions: Sequence[tuple[float, float]]
) -> Float[Tensor, "X Y"]:
    r"""Compute the output at every node when one node emits.

    P-mode: :math:`T_{rl} = T_{ru} = t_x`, :math:`T_{du} = T_{dl} = t_y`, with :math:`t_x + t_y \le 1`, and the source
    is split in the same proportion. D-mode, chirality L: :math:`T_{rl} = t_x`, :math:`T_{du} = t_y`,
    :math:`T_{ru} = 1`, :math:`T_{dl} = 0`, and the source emits one along both edges. Query, key and marks are one.

    Args:
        size: side of the grid.
        source: the node (x, y) that emits.
        mode: "P" or "D".
        transitions: up to four pairs (t_x, t_y), one per orientation; the others emit nothing.

    Returns:
        [size, size] float64, X first: a column of the gating matrix (paper eq. 7).

    Raises:
        ValueError: if the mode is unknown, the source outside the grid or there are more than four orientations.
    """
    check_choice("mode", mode, ("P", "D"))
    if not all(0 <= place < size for place in source):
        raise ValueError(f"source: expected a node of a grid with side {size}, got {source}")
    if not 1 <= len(transitions) <= 4:
        raise ValueError(f"transitions: expected one to four orientations, got {len(transitions)}")
    pairs = torch.zeros(2, 4, dtype=torch.float64)
    pairs[:, : len(transitions)] = torch.tensor(transitions, dtype=torch.float64).T
    active = torch.arange(4) < len(transitions)

    def everywhere(values: Tensor) -> Tensor:
        return values.reshape(1, 4, 1, 1, 1, 1).expand(1, 4, size, size, 1, 1).contiguous()

    along_x, along_y = everywhere(pairs[0]), everywhere(pairs[1])
    ones = torch.ones(1, size, size, 1, 1, dtype=torch.float64)
    value = torch.zeros_like(ones)
    value[0, source[0], source[1]] = 1.0
    mark = everywhere(torch.ones(4, dtype=torch.float64)).unsqueeze(-1)
    total = (pairs[0] + pairs[1]).clamp(min=1e-12) if mode == "P" else torch.ones(4, dtype=torch.float64)
    shares = pairs / total if mode == "P" else torch.ones_like(pairs)
    output: Any = plstm_2d_oriented(
        ones,
        ones,
        value,
        source_r=everywhere(shares[0] * active).unsqueeze(-1),
        source_d=everywhere(shares[1] * active).unsqueeze(-1),
        transition_rl=along_x,
        transition_du=along_y,
        transition_ru=None if mode == "P" else everywhere(active.to(torch.float64)),
        mark_l=mark,
        mark_u=None if mode == "P" else mark,
        mode="P" if mode == "P" else None,
        direct=torch.ones(1, size, size, 1, 1, 1, 1, dtype=torch.float64),
    )
    return output[0, :, :, 0, 0]


def default_fields(angles: Sequence[float], decay: float) -> list[list[Field]]:
    """Return the panels of the picture: a row for P-mode and a row for D-mode.

    Args:
        angles: angle a of each P panel, between 0 and 1.
        decay: decay g of the P panels, at most 1.

    Returns:
        Two rows of equal length; the last panel of each sums four orientations.
    """

    def along(angle: float) -> tuple[float, float]:
        return (decay * angle, decay * (1 - angle))

    p_row = [
        Field(f"angle a = {angle:g}", _gates(*along(angle)), _CORNER, "P", (along(angle),), ((angle, 1 - angle),))
        for angle in angles
    ]
    fan = [angles[i % len(angles)] for i in range(4)]
    rays = tuple((x * a, y * (1 - a)) for a, (x, y) in zip(fan, _FLIPS, strict=True))
    transitions = tuple(along(a) for a in fan)
    p_row.append(Field("four orientations", "an angle for each", _MIDDLE, "P", transitions, rays))
    d_row = [
        Field(title, _gates(*pair), _CORNER, "D", (pair,))
        for title, pair in (_D_PANELS[i % len(_D_PANELS)] for i in range(len(angles)))
    ]
    d_row.append(Field("four orientations", _gates(0.94, 0.94), _MIDDLE, "D", ((0.94, 0.94),) * 4))
    return [p_row, d_row]


def _gates(along_x: float, along_y: float) -> str:
    return f"T→ = {along_x:.3g}   T↓ = {along_y:.3g}"


def receptive_field_figure(*, size: int = 64, angles: Sequence[float] = (0.2, 0.5, 0.75), decay: float = 1.0) -> Any:
    """Draw the impulse responses of P and D layers over a grid.

    Args:
        size: side of the grid.
        angles: angle a of each P panel.
        decay: decay g of the P panels.

    Returns:
        A matplotlib figure.

    Raises:
        UserError: if matplotlib is not installed.
        ValueError: if an option is out of range.
    """
    if size < 8:
        raise ValueError(f"size: expected at least 8, got {size}")
    if not angles or not all(0 < angle < 1 for angle in angles):
        raise ValueError(f"angle: expected one or more numbers between 0 and 1, got {tuple(angles)}")
    if not 0 < decay <= 1:
        raise ValueError(f"decay: expected a number above 0 and up to 1, got {decay}")
    figure_module, colors = require("matplotlib.figure", "matplotlib"), require("matplotlib.colors", "matplotlib")
    rows = default_fields(angles, decay)
    columns = len(rows[0])
    figure = figure_module.Figure(figsize=(2.75 * columns + 0.9, 6.9), dpi=160, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06, hspace=0.03, wspace=0.02)
    bands = figure.subfigures(2, 1)
    headings = (
        ("P-mode: directed propagation", "the signal keeps its direction and decays like 1 / √length along its line"),
        (
            "D-mode: diffusive distribution",
            "the signal reaches every node ahead; at |T| = 1 without any decay",
        ),
    )
    scale = colors.LogNorm(_FLOOR, 1.0)
    for band, row, (name, meaning) in zip(bands, rows, headings, strict=True):
        band.suptitle(f"{name}  —  {meaning}", color=_INK, fontsize=11, x=0.012, ha="left")
        palette = colors.LinearSegmentedColormap.from_list("response", _PALETTES[row[0].mode])
        panels = band.subplots(1, columns, squeeze=False)[0]
        for axes, field in zip(panels, row, strict=True):
            image = _draw_panel(axes, field, size, palette, scale)
        bar = band.colorbar(image, ax=list(panels), shrink=0.86, pad=0.012, extend="min")
        bar.set_label("response to a unit impulse", color=_FAINT, fontsize=8)
        bar.ax.tick_params(labelsize=7, colors=_FAINT)
        bar.outline.set_visible(False)
    return figure


def _draw_panel(axes: Any, field: Field, size: int, palette: Any, scale: Any) -> Any:
    node = (round(field.source[0] * (size - 1)), round(field.source[1] * (size - 1)))
    response = impulse_response(size, node, field.mode, field.transitions).abs().numpy().T
    image = axes.imshow(response.clip(_FLOOR / 10), cmap=palette, norm=scale, interpolation="nearest")
    for direction in field.lines:
        end = _to_border(node, direction, size)
        axes.plot((node[0], end[0]), (node[1], end[1]), color=_LINE, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.plot(*node, marker="o", markersize=5, color=_NODE, markeredgecolor="white", markeredgewidth=0.8)
    axes.set_title(field.title, color=_INK, fontsize=10, loc="left", pad=18)
    axes.text(0, 1.025, field.note, transform=axes.transAxes, color=_FAINT, fontsize=8)
    axes.set_xlim(-0.5, size - 0.5)
    axes.set_ylim(size - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("X, right →", fontsize=7, color=_FAINT, loc="left")
    axes.set_ylabel("← Y, down", fontsize=7, color=_FAINT, loc="top")
    for spine in axes.spines.values():
        spine.set_color("#c9d0d8")
    return image


def _to_border(node: tuple[int, int], direction: tuple[float, float], size: int) -> tuple[float, float]:
    """Return where a ray from a node leaves the grid."""
    reach = math.inf
    for place, step in zip(node, direction, strict=True):
        if step:
            border = size - 0.5 if step > 0 else -0.5
            reach = min(reach, (border - place) / step)
    return (node[0] + reach * direction[0], node[1] + reach * direction[1])
