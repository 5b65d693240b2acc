"""What a vision model attends to on an image of one's own: by gradients, and by the gates of its layers on grids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from plstm_torch.layers.plstm_2d import pLSTM2DLayer, pLSTM2DLayerFused
from plstm_torch.models.vision import pLSTMVisionModel
from plstm_torch.ops import plstm_2d
from plstm_torch.optional import require

_INK, _FAINT, _BORDER, _MARK = "#1b2430", "#6b7684", "#d8dde3", "#d1495b"
_FLOOR = 1e-3
_PALETTES = {"P": ["#ffffff", "#b5d7e3", "#2f86a8", "#0f2f52"], "D": ["#ffffff", "#fad7ac", "#dd7238", "#5a1f2b"]}
_ARROWS = {0: "→↓", 1: "→↑", 2: "←↓", 3: "←↑"}  # X is the height: bit 1 flips it, bit 2 the width
Grid = pLSTM2DLayer | pLSTM2DLayerFused


@dataclass(frozen=True)
class GateField:
    """What one node hears of all others through the gates of a layer.

    Attributes:
        layer: dotted name of the layer.
        mode: "P" or "D".
        orientations: numbers of the orientations; bit 1 flips X, bit 2 flips Y.
        field: by head, orientation and patch, not negative [H, O, X, Y].
    """

    layer: str
    mode: str
    orientations: tuple[int, ...]
    field: Float[Tensor, "H O X Y"]


def pixel_fields(
    model: nn.Module, pixels: Float[Tensor, "height width C"], node: tuple[int, int] | None = None
) -> dict[str, Float[Tensor, "height width"]]:
    r"""Compute what every pixel changes, by gradients.

    For each block the length of the features of one patch, :math:`\| \partial \tfrac12 \|f_{node}\|^2 / \partial p \|`,
    then the most likely class, :math:`\| \partial z_{max} / \partial p \|`.

    Args:
        model: a pLSTMVisionModel with blocks on grids, in evaluation mode.
        pixels: one image, channels last.
        node: the patch (row, column); None: the middle.

    Returns:
        For "block 1" and so on, and for "logit" where the model has a head, the norm over channels at every pixel.

    Raises:
        TypeError: if it is another model.
        ValueError: if there is no such patch, or the sizes do not fit.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> from plstm_torch.show_image import pixel_fields
        >>> sizes = {"dim": 16, "num_heads": 2, "num_blocks": 1, "img_size": 32}
        >>> config = plstm_config.preset("plstm_vis_tiny", num_classes=3, **sizes)
        >>> model = plstm_torch.build(config).eval()
        >>> sorted(pixel_fields(model, torch.rand(32, 32, 3)))
        ['block 1', 'logit']
    """
    vision = _checked(model)
    given = _batch(vision, pixels).requires_grad_()
    measures: dict[str, Tensor] = {}
    for number, (grid, _) in enumerate(vision.encode(given)):
        if number:
            x, y = _node(grid, node)
            measures[f"block {number}"] = 0.5 * grid[0, x, y].square().sum()
    if vision.head is not None:
        measures["logit"] = vision(given)[0].max()
    fields = {}
    for name, measure in measures.items():
        (gradient,) = torch.autograd.grad(measure, given, retain_graph=True)
        shown = gradient[0].movedim(0, -1) if vision.config.channels_first else gradient[0]
        fields[name] = torch.linalg.vector_norm(shown, dim=-1).detach()
    return fields


def gate_fields(
    model: nn.Module, pixels: Float[Tensor, "height width C"], node: tuple[int, int] | None = None
) -> list[GateField]:
    """Compute how strongly one node hears every other through source, transition and mark gates.

    Queries and keys are taken as one, and values as an impulse at the other node: what is left are the gates that the
    layers have on this image, a row of their gating matrix.

    Args:
        model: a pLSTMVisionModel with layers on grids.
        pixels: one image, channels last.
        node: the patch (row, column) that listens; None: the middle.

    Returns:
        One entry for each layer on grids, in the order in which they run.

    Raises:
        TypeError: if it is another model.
        ValueError: if there is no such patch, or the sizes do not fit.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> from plstm_torch.show_image import gate_fields
        >>> sizes = {"dim": 16, "num_heads": 2, "num_blocks": 1, "img_size": 32}
        >>> config = plstm_config.preset("plstm_vis_tiny", num_classes=3, **sizes)
        >>> fields = gate_fields(plstm_torch.build(config).eval(), torch.rand(32, 32, 3))
        >>> [(field.mode, tuple(field.field.shape)) for field in fields]
        [('P', (2, 4, 2, 2)), ('D', (2, 4, 2, 2))]
    """
    found: list[GateField] = []
    handles = []
    names = {module: name for name, module in model.named_modules() if isinstance(module, Grid)}

    def listen(layer: Any, inputs: tuple[Tensor, ...]) -> None:
        field = _heard(layer, inputs[0], _node(inputs[0], node))
        found.append(GateField(names[layer], layer.config.mode, tuple(layer.orientations), field))

    given = _batch(_checked(model), pixels)
    try:
        handles = [layer.register_forward_pre_hook(listen) for layer in names]
        with torch.no_grad():
            model(given)
    finally:
        for handle in handles:
            handle.remove()
    return found


def image_figure(model: nn.Module, pixels: Float[Tensor, "height width C"], node: tuple[int, int] | None = None) -> Any:
    """Draw an image, what each pixel changes, and what one patch hears in each layer.

    Args:
        model: a pLSTMVisionModel with layers on grids, in evaluation mode.
        pixels: one image between 0 and 1, channels last.
        node: the patch (row, column); None: the middle.

    Returns:
        A matplotlib figure: a row of gradients, then a strip for each layer, by head and orientation.

    Raises:
        UserError: if matplotlib is not installed.
        TypeError: if it is another model.
        ValueError: if there is no such patch, or the sizes do not fit.
    """
    by_pixels, by_gates = pixel_fields(model, pixels, node), gate_fields(model, pixels, node)
    columns = len(by_pixels) + 1
    height = 2.2 + 0.95 * len(by_gates)
    figure = require("matplotlib.figure", "matplotlib").Figure(
        figsize=(max(9.0, 1.6 * columns), height), dpi=140, layout="constrained"
    )
    above, below = figure.subfigures(2, 1, height_ratios=(2.2, height - 2.2))
    panels = above.subplots(1, columns, squeeze=False, subplot_kw={"xticks": []})[0]
    panels[0].imshow(pixels.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
    _title(panels[0], "image")
    if by_gates:
        panels[0].plot(*_middle(by_gates[0].field, pixels, node), "o", ms=5, mfc="none", mec=_MARK)
    for axes, (name, field) in zip(panels[1:], by_pixels.items(), strict=True):
        axes.imshow((field / field.max().clamp(min=1e-30)).numpy(), cmap="magma", vmin=0, vmax=1)
        _title(axes, name)
    above.suptitle("gradients: which pixels change a patch's features, and the answer", color=_INK, fontsize=9)
    strips = below.subplots(len(by_gates), 1, squeeze=False)[:, 0] if by_gates else []
    for axes, gates in zip(strips, by_gates, strict=True):
        _draw_strip(axes, gates)
    below.suptitle("gates: what the patch hears of the others, by head and orientation", color=_INK, fontsize=9)
    return figure


def _checked(model: nn.Module) -> pLSTMVisionModel:
    if not isinstance(model, pLSTMVisionModel):
        raise TypeError(f"model: expected a pLSTMVisionModel, got {type(model).__name__}")
    return model


def _batch(model: pLSTMVisionModel, pixels: Tensor) -> Tensor:
    if pixels.ndim != 3:
        raise ValueError(f"pixels: expected one image [height, width, channels], got shape {tuple(pixels.shape)}")
    given = pixels.movedim(-1, 0) if model.config.channels_first else pixels
    return given.detach().clone()[None]


def _node(grid: Tensor, node: tuple[int, int] | None) -> tuple[int, int]:
    sides = (grid.shape[1], grid.shape[2])
    x, y = (sides[0] // 2, sides[1] // 2) if node is None else node
    if not (0 <= x < sides[0] and 0 <= y < sides[1]):
        raise ValueError(f"node: expected a patch of a grid of {sides[0]} x {sides[1]}, got {node}")
    return x, y


@torch.enable_grad()
def _heard(layer: Any, x: Tensor, node: tuple[int, int]) -> Float[Tensor, "H O X Y"]:
    """The response of one node to an impulse at each, as the gradient of one output: the op is linear in its values."""
    gates = layer._gates(x.detach(), layer._begin(x.detach())[1], lambda gate: gate)
    turned: dict[str, Any] = {
        name: _turned(gate.detach()[0], layer.orientations).flatten(0, 1) if isinstance(gate, Tensor) else gate
        for name, gate in gates.items()
    }
    source, mark = turned["source_r"], turned["mark_l"]
    grid, (_, keys, values), (outputs, queries) = source.shape[:3], source.shape[3:], mark.shape[3:5]
    value = torch.zeros(*grid, 1, values, dtype=source.dtype, device=x.device, requires_grad=True)
    result: Any = plstm_2d(
        source.new_ones(*grid, 1, queries),
        source.new_ones(*grid, 1, keys),
        value,
        direct=source.new_zeros(*grid, outputs, queries, keys, values),
        **turned,
    )
    heads = (x.shape[0] * layer.num_heads, len(layer.orientations))
    at_node = _turned(result.unflatten(0, heads), layer.orientations)[:, :, node[0], node[1]]
    (gradient,) = torch.autograd.grad(at_node.sum(), value)
    return _turned(gradient.unflatten(0, heads), layer.orientations).sum((-1, -2)).abs().detach()


def _turned(tensor: Tensor, orientations: Sequence[int]) -> Tensor:
    """Turn [H, O, X, Y, ...] so that each orientation runs right and down; its own inverse."""
    turned = [
        part.flip([axis for bit, axis in ((1, 1), (2, 2)) if orientation & bit])
        for part, orientation in zip(tensor.unbind(1), orientations, strict=True)
    ]
    return torch.stack(turned, 1)


def _middle(field: Tensor, pixels: Tensor, node: tuple[int, int] | None) -> tuple[float, float]:
    """Where the patch lies in the image, (column, row) in pixels."""
    row, column = (field.shape[-2] // 2, field.shape[-1] // 2) if node is None else node
    return (
        (column + 0.5) * pixels.shape[1] / field.shape[-1] - 0.5,
        (row + 0.5) * pixels.shape[0] / field.shape[-2] - 0.5,
    )


def _draw_strip(axes: Any, gates: GateField) -> None:
    colors = require("matplotlib.colors", "matplotlib")
    palette = colors.LinearSegmentedColormap.from_list("heard", _PALETTES[gates.mode])
    heads, orientations, _, width = gates.field.shape
    framed = nn.functional.pad(gates.field, (0, 1), value=float("nan")).flatten(0, 1)
    strip = torch.cat(list(framed), dim=1).numpy()
    top = max(float(gates.field.max()), 1e-30)
    axes.imshow(strip / top, cmap=palette, norm=colors.LogNorm(_FLOOR, 1.0, clip=True), interpolation="nearest")
    for place in range(1, heads * orientations):
        axes.axvline(place * (width + 1) - 1, color=_BORDER, linewidth=1.0)
    axes.set_xticks([(place + 0.5) * (width + 1) - 1 for place in range(heads * orientations)])
    axes.set_xticklabels(
        [f"{head} {_ARROWS[orientation]}" for head in range(heads) for orientation in gates.orientations], fontsize=5
    )
    _title(axes, f"{gates.layer}   mode {gates.mode}   largest {top:.2g}")


def _title(axes: Any, text: str) -> None:
    axes.set_title(text, color=_FAINT, fontsize=7, loc="left", pad=2)
    axes.set_yticks([])
    axes.tick_params(length=0)
