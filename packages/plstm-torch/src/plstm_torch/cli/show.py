"""`plstm-torch show`: pictures of what the layers do."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from plstm_torch.optional import UserError

app = typer.Typer(help="Draw what the layers do.", pretty_exceptions_enable=False)


@app.callback()
def show() -> None:
    """Draw what the layers do."""


@app.command("receptive-field")
def receptive_field(
    out: Annotated[Path, typer.Option(help="Where to write the picture (.png, .svg or .pdf).")] = Path(
        "receptive_field.png"
    ),
    size: Annotated[int, typer.Option(help="Side of the grid.")] = 64,
    angle: Annotated[list[float] | None, typer.Option(help="Angle of a P panel; may be repeated.")] = None,
    decay: Annotated[float, typer.Option(help="Decay of the P panels, at most 1.")] = 1.0,
) -> None:
    """Impulse responses of a P and a D layer over a grid: what one node's signal reaches, and how strongly."""
    from plstm_torch.show import receptive_field_figure

    angles = tuple(angle) if angle else (0.2, 0.5, 0.75)
    _write(out, lambda: receptive_field_figure(size=size, angles=angles, decay=decay))


@app.command("graph")
def graph(
    out: Annotated[Path, typer.Option(help="Where to write the picture (.png, .svg or .pdf).")] = Path("graph.png"),
    layers: Annotated[int, typer.Option(help="Layers of nodes.")] = 9,
    width: Annotated[int, typer.Option(help="Nodes in a layer.")] = 7,
    seed: Annotated[int, typer.Option(help="Of the graph.")] = 0,
) -> None:
    """The signal of one node on a directed acyclic graph in P- and in D-mode."""
    from plstm_torch.show_graph import graph_figure

    _write(out, lambda: graph_figure(num_layers=layers, width=width, seed=seed))


def _write(out: Path, draw: Callable[[], Any]) -> None:
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"--out {out}: expected a name that ends in .png, .svg or .pdf")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}")
    try:
        draw().savefig(out)
    except ValueError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    print(out)
