"""`plstm-torch show`: pictures of what the layers do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from plstm_torch.optional import UserError, require
from plstm_torch.settings.commands import FieldSettings, GraphPictureSettings

_ANGLES = (0.2, 0.5, 0.75)


def receptive_field(settings: FieldSettings) -> int:
    """Draw impulse responses of a P and a D layer over a grid.

    Args:
        settings: what the picture shows.

    Returns:
        The exit code.
    """

    def draw() -> Any:
        from plstm_torch.show import receptive_field_figure

        return receptive_field_figure(size=settings.size, angles=settings.angle or _ANGLES, decay=settings.decay)

    return _write(Path(settings.out), draw)


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
