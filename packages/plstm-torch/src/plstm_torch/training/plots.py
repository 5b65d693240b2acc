"""Pictures of a run. They draw on figures of their own, so no global state of matplotlib is touched."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plstm_torch.optional import require
from plstm_torch.training.progress import Progress

_TITLE_LENGTH = 14  # characters that fit above a picture of a grid
_INK, _GRID, _LEFT, _RIGHT, _WRONG = "#22272e", "#d8dde3", "#2f6db5", "#c8553d", "#c0392b"


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure without a window.

    Args:
        width: in inches.
        height: in inches.

    Returns:
        The figure.

    Raises:
        UserError: if matplotlib is not installed.
    """
    return require("matplotlib.figure", "matplotlib").Figure(figsize=(width, height), dpi=120, layout="constrained")


def curves(progress: Progress, measure: str) -> Any:
    """Draw the loss of every step and epoch beside the measures on validation data.

    Args:
        progress: of the run.
        measure: name of what chooses the epoch, val_accuracy for instance.

    Returns:
        The figure.
    """
    figure = new_figure(9, 3.6)
    loss_axes, measure_axes = figure.subplots(1, 2)
    step_losses, epochs = progress.step_losses, progress.epochs
    steps = np.arange(1, len(step_losses) + 1) * progress.steps_per_loss
    loss_axes.plot(steps, step_losses, color=_LEFT, alpha=0.25, linewidth=0.8, label="training, each step")
    at = [line["step"] for line in epochs]
    loss_axes.plot(at, [line["train_loss"] for line in epochs], color=_LEFT, marker="o", ms=3, label="training, epoch")
    measured = [line for line in epochs if "val_loss" in line]
    held_out = [line["val_loss"] for line in measured]
    if held_out:
        places = [line["step"] for line in measured]
        loss_axes.plot(places, held_out, color=_RIGHT, marker="o", ms=3, label="validation")
    positive = [loss for loss in (*step_losses, *held_out) if loss > 0]
    if positive and max(positive) > 8 * min(positive):
        loss_axes.set_yscale("log")
    _finish(loss_axes, "loss (nats)")
    names = [name for name in (epochs[-1] if epochs else {}) if name == measure or name.startswith(f"{measure}_")]
    for name in names:
        values = [line[name] for line in epochs]
        label = f"{name.replace('_', ' ')}: {values[-1]:.4f}"
        measure_axes.plot(at, values, marker="o", ms=3, label=label)
    _finish(measure_axes, measure.replace("_", " "))
    return figure


def _finish(axes: Any, title: str) -> None:
    axes.set_title(title, color=_INK, fontsize=11, loc="left")
    axes.set_xlabel("step")
    axes.grid(color=_GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.lines:
        axes.legend(frameon=False, fontsize=8)


def image_grid(images: ArrayLike, answers: Sequence[str], truths: Sequence[str], columns: int) -> Any:
    """Draw images with the model's answers; wrong ones are red and name the truth.

    Args:
        images: [N, height, width] or [N, height, width, 3] between 0 and 1.
        answers: what the model says about each.
        truths: what is right.
        columns: images in a row.

    Returns:
        The figure.
    """
    pictures = np.asarray(images)
    rows = math.ceil(len(pictures) / columns)
    figure = new_figure(1.15 * columns, 1.4 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, picture, answer, truth in zip(grid, pictures, answers, truths, strict=False):
        axes.imshow(picture, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        right = answer == truth
        title = answer if right else f"{answer}, not {truth}"
        if len(title) > _TITLE_LENGTH:
            title = title.replace(", ", ",\n")
        axes.set_title(title, fontsize=8, color=_INK if right else _WRONG, pad=3)
    return figure


def text_heat(values: bytes, bits: NDArray[np.floating], columns: int = 72) -> Any:
    """Draw a text on a ground that shows how many bits each byte cost the model.

    Args:
        values: the bytes.
        bits: [N] cost of each.
        columns: bytes in a row.

    Returns:
        The figure.
    """
    colors = require("matplotlib.colors", "matplotlib")
    rows = max(1, math.ceil(len(values) / columns))
    figure = new_figure(11, 1.1 + 0.26 * rows)
    axes = figure.subplots()
    cost = np.full(rows * columns, np.nan)
    cost[: len(values)] = bits
    palette = colors.LinearSegmentedColormap.from_list("bits", ["#ffffff", "#fbe3b5", "#f2994b", "#c8402f"])
    image = axes.imshow(cost.reshape(rows, columns), cmap=palette, vmin=0, vmax=8, aspect="auto")
    for position, value in enumerate(values):
        sign = chr(value) if 33 <= value < 127 else {10: "¶", 32: " "}.get(value, "·")
        x, y = position % columns, position // columns
        # "$" would start a formula
        axes.text(x, y, sign.replace("$", r"\$"), ha="center", va="center", family="monospace", fontsize=9, color=_INK)
    axes.set_axis_off()
    bar = figure.colorbar(image, ax=axes, orientation="horizontal", fraction=0.08, aspect=60, pad=0.02)
    bar.set_label("bits to encode the byte, given everything before it (held-out text)", fontsize=9)
    bar.outline.set_visible(False)
    return figure


def fold_curves(histories: Sequence[Sequence[Mapping[str, float]]]) -> Any:
    """Draw loss and accuracy over the epochs of all folds: the mean as a line, one standard deviation as a band.

    Args:
        histories: for each fold the metrics of every epoch.

    Returns:
        The figure.
    """
    figure = new_figure(9, 3.6)
    length = min(len(history) for history in histories)
    epochs = np.arange(1, length + 1)
    for axes, measure in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split, color in (("train", _LEFT), ("val", _RIGHT)):
            values = np.array([[line[f"{split}_{measure}"] for line in history[:length]] for history in histories])
            mean, deviation = values.mean(0), values.std(0)
            axes.plot(epochs, mean, color=color, label=f"{split}: {mean[-1]:.3f}")
            axes.fill_between(epochs, mean - deviation, mean + deviation, color=color, alpha=0.15, linewidth=0)
        _finish(axes, f"{measure}, {len(histories)} folds")
        axes.set_xlabel("epoch")
    return figure


def confusion(counts: NDArray[np.floating]) -> Any:
    """Draw how often each class was taken for which.

    Args:
        counts: [true class, predicted class].

    Returns:
        The figure.
    """
    size = len(counts)
    figure = new_figure(1.9 + 0.7 * size, 1.7 + 0.7 * size)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for truth, answer in np.ndindex(size, size):
        color = "white" if shares[truth, answer] > 0.6 else _INK
        text = f"{counts[truth, answer]:.0f}\n{shares[truth, answer]:.0%}"
        axes.text(answer, truth, text, ha="center", va="center", color=color, fontsize=10)
    axes.set_xticks(range(size))
    axes.set_yticks(range(size))
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title("test graphs", color=_INK, fontsize=11, loc="left")
    return figure
