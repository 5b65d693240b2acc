"""`plstm-torch show`: pictures of what the layers do."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from plstm_torch.optional import UserError, require
from plstm_torch.settings.commands import EvaluateSettings, FieldSettings, GraphPictureSettings

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
    """Draw the signal of one node in P- and in D-mode, or what a node of one's own graph hears in a trained model.

    Args:
        settings: what the picture shows.

    Returns:
        The exit code.
    """
    if settings.run is not None:
        return _write(Path(settings.out), partial(_on_graph, settings))

    def draw() -> Any:
        from plstm_torch.show_graph import graph_figure

        return graph_figure(num_layers=settings.layers, width=settings.width, seed=settings.seed)

    return _write(Path(settings.out), draw)


def _on_graph(settings: GraphPictureSettings) -> Any:
    """The picture of a trained model on a graph of its data."""
    import torch

    from plstm_torch.cli.use import load_trained, open_trained
    from plstm_torch.show_gates import gates_figure
    from plstm_torch.training.graph_task import GraphBatch, GraphsTask
    from plstm_torch.training.node_task import NodesTask

    places = {name: getattr(settings, name) for name in ("edges", "nodes", "root")}
    folder, task = open_trained(EvaluateSettings(folder=str(settings.run), **places))
    names: Sequence[str] | None = None
    if isinstance(task, NodesTask):
        graph, names = task.graph, task.data.ids
    elif isinstance(task, GraphsTask):
        if settings.graph >= len(task.data.graphs):
            raise UserError(f"graph: expected one from 0 to {len(task.data.graphs) - 1}, got {settings.graph}")
        graph = GraphBatch.from_arrays(task.data.graphs[settings.graph])
    else:
        raise UserError(f"run: expected a run of nodes or graphs, {folder.path} holds {task.name}")
    model = load_trained(task, folder.path, torch.device("cpu"))
    node = _number(str(settings.node), names, len(graph.x))
    return gates_figure(
        model, graph.x, graph.topology, graph.edge_attr, node=node, largest=settings.largest, labels=names
    )


def _number(node: str, names: Sequence[str] | None, num_nodes: int) -> int:
    known = [str(number) for number in range(num_nodes)] if names is None else names
    if node not in known:
        expected = f"a number from 0 to {num_nodes - 1}" if names is None else f"an id such as {known[0]!r:.40}"
        raise UserError(f"node: expected {expected}, got {node!r:.40}")
    return known.index(node)


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
