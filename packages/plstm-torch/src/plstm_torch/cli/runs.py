"""`plstm-torch eval` and `plstm-torch generate`: use what a run folder holds."""

import json
import sys
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from plstm_torch.cli import options as o
from plstm_torch.optional import UserError
from plstm_torch.training.distributed import choose_device, open_world
from plstm_torch.training.image_tasks import ArrowsTask
from plstm_torch.training.run_folder import RunFolder
from plstm_torch.training.task import Task, open_task
from plstm_torch.training.text_task import sample_bytes

Folder = Annotated[Path, typer.Argument(help="Run folder of `plstm-torch train`.")]


def _load(task: Task, folder: Path, device: torch.device) -> nn.Module:
    try:
        return task.load_model(folder).to(device).eval()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load the model in {folder}: {error}") from error


def evaluate(
    folder: Folder,
    size: Annotated[list[int] | None, typer.Option(help="Arrows: test at this size too; may be repeated.")] = None,
    file: Annotated[Path | None, typer.Option(help="Text: measure on the tail of this file instead.")] = None,
    device: o.Device = None,
    threads: o.Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON instead of a table.")] = False,
) -> None:
    """Measure a trained model on its held-out data."""
    settings = RunFolder(folder).read_settings()
    data = dict(settings.data)
    if size and settings.task != "arrows":
        raise UserError(f"--size: expected a run of arrows, {folder} holds {settings.task}")
    if file is not None:
        if settings.task != "text":
            raise UserError(f"--file: expected a run of text, {folder} holds {settings.task}")
        data |= {"file": str(file), "digest": ""}
    if threads is not None:
        torch.set_num_threads(threads)
    task = open_task(settings.task, data, settings.training.seed)
    if size and isinstance(task, ArrowsTask):
        try:
            task = task.with_test_sizes(size)
        except ValueError as error:
            raise UserError(str(error)) from error
    with open_world(device or "auto") as world, torch.no_grad():
        measured = task.evaluate(_load(task, folder, world.device), world)
        if not world.is_main:
            return
    if as_json:
        print(json.dumps({"task": settings.task, **measured}))
        return
    table = Table("measure", "value", title=f"{folder} ({settings.task})")
    for name, value in measured.items():
        table.add_row(name.replace("_", " "), f"{value:.4f}")
    Console().print(table)


def generate(
    folder: Folder,
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "\n",
    length: Annotated[int, typer.Option(help="Bytes to generate.", min=0)] = 400,
    temperature: Annotated[float, typer.Option(help="0 takes the most likely byte.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k most likely bytes.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the bytes that reach this probability.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the draws; none: another text each time.")] = None,
    device: o.Device = None,
    threads: o.Threads = None,
) -> None:
    """Continue a prompt with a trained language model, byte by byte."""
    settings = RunFolder(folder).read_settings()
    if settings.task != "text":
        raise UserError(f"generate: expected a run of text, {folder} holds {settings.task}")
    if threads is not None:
        torch.set_num_threads(threads)
    chosen = choose_device(device or "auto")
    model = _load_language_model(folder, chosen)
    sampling: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    stream = sample_bytes(model, prompt.encode(), length, device=chosen, seed=seed, **sampling)
    try:
        first = next(stream, b"")
    except ValueError as error:
        raise UserError(str(error)) from error
    out = sys.stdout.buffer
    for piece in chain((prompt.encode() + first,), stream, (b"\n",)):
        out.write(piece)
        out.flush()


def _load_language_model(folder: Path, device: torch.device) -> nn.Module:
    """Load without the task: the text that the run was trained on is not needed any more."""
    from plstm_torch.pretrained import from_pretrained

    try:
        return from_pretrained(folder).to(device).eval()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load the model in {folder}: {error}") from error
