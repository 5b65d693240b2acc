"""`plstm-torch show`: pictures of what the layers do."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from plstm_torch.optional import UserError, require
from plstm_torch.settings.commands import FieldSettings, GraphPictureSettings

_ANGLES = (0.2, 0.5, 0.75)


def receptive_field(settings: FieldSettings) -> int:
    """Draw impulse responses of a P and a D layer over a grid, or what a model attends to on an image.

    Args:
        settings: what the picture shows.

    Returns:
        The exit code.
    """
    if settings.run is not None and settings.image is not None:
        return _write(Path(settings.out), partial(_on_image, Path(settings.run), Path(settings.image), settings.node))

    def draw() -> Any:
        from plstm_torch.show import receptive_field_figure

        return receptive_field_figure(size=settings.size, angles=settings.angle or _ANGLES, decay=settings.decay)

    return _write(Path(settings.out), draw)


def _on_image(folder: Path, image: Path, node: tuple[int, int] | None) -> Any:
    """The picture of a trained model on an image."""
    import torch

    from plstm_torch.pretrained import from_pretrained
    from plstm_torch.show_image import image_figure
    from plstm_torch.training.image_folder import fitted_image

    try:
        model: Any = from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"run: expected a folder of a vision model: {error}") from error
    if type(model).__name__ != "pLSTMVisionModel":
        raise UserError(f"run: expected a folder of a vision model, {folder} holds a {type(model).__name__}")
    config = model.config
    pixels = fitted_image(image, tuple(config.resolution), name="image", channels=config.num_channels) / 255
    return image_figure(model, torch.from_numpy(pixels).float(), node)


def graph(settings: GraphPictureSettings) -> int:
    """Draw the signal of one node on a directed acyclic graph in P- and in D-mode.

    Args:
        settings: what the picture shows.

    Returns:
        The exit code.
    """

    def draw() -> Any:
        from plstm_torch.show_graph import graph_figure

        return graph_figure(num_layers=settings.layers, width=settings.width, seed=settings.seed)

    return _write(Path(settings.out), draw)


def _write(out: Path, draw: Callable[[], Any]) -> int:
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"out: expected a name that ends in .png, .svg or .pdf, got {out}")
    if not out.parent.is_dir():
        raise UserError(f"out: expected a folder that exists, got {out.parent}")
    require("matplotlib.figure", "matplotlib")
    try:
        draw().savefig(out)
    except ValueError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        out.unlink(missing_ok=True)
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    print(out)
    return 0
