"""`plstm-torch eval` and `plstm-torch generate`: use what a run folder holds, which may come from a stranger."""

import json
import math
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from plstm_torch.optional import FailedRunError, UserError
from plstm_torch.settings import TASK_SETTINGS, MachineSettings, RunSettings
from plstm_torch.settings.commands import EvaluateSettings, GenerateSettings
from plstm_torch.training.corpus import as_text, encode, num_tokens, read_tokenizer
from plstm_torch.training.distributed import choose_device, open_world
from plstm_torch.training.model_task import load_fitting
from plstm_torch.training.run_folder import TOKENIZER_FILE, RunFolder
from plstm_torch.training.task import Task
from plstm_torch.training.tasks import open_task
from plstm_torch.training.text_task import sample_stream

_OPTIONS = {"files": "file"}  # by the names of their fields


def evaluate(settings: EvaluateSettings, machine: MachineSettings) -> int:
    """Measure a trained model on its held-out data.

    Args:
        settings: what is measured.
        machine: where.

    Returns:
        The exit code.

    Raises:
        UserError: if the folder holds no run, or the data are missing.
        FailedRunError: if the run has no weights yet, or a measure is infinite or no number.
    """
    if machine.threads is not None:
        torch.set_num_threads(machine.threads)
    folder, task = open_trained(settings)
    with open_world(machine) as world, torch.no_grad():
        model = load_trained(task, folder.path, world.device)
        try:
            measured = task.evaluate(model, world, "test")
        except ValueError as error:
            raise UserError(f"cannot measure the model in {folder.path}: {error}") from error
        for name, value in measured.items():
            if not math.isfinite(value):
                raise FailedRunError(f"{folder.path}: {name} is {value}; the weights of its model are of no use")
        if world.is_main:
            _print(measured, task.name, folder.path, as_json=settings.json)
    return 0


def open_trained(settings: EvaluateSettings) -> tuple[RunFolder, Task]:
    """Open a run that has weights, with the data that the command line names.

    Args:
        settings: the folder, and where the data are.

    Returns:
        The folder and the task.

    Raises:
        UserError: if the folder holds no run, or the data are missing.
        FailedRunError: if the run has no weights yet.
    """
    folder = RunFolder(Path(settings.folder))
    stored = folder.read_settings()
    data = _data(stored, settings)
    _require_model(folder)
    return folder, open_task(stored.task, data, stored.training.seed)


def _data(stored: RunSettings, settings: EvaluateSettings) -> dict[str, Any]:
    """The stored settings of the data, with what the command line says; only it says which files are read."""
    data = dict(stored.data)
    cls = TASK_SETTINGS.get(stored.task)
    for name, tasks in (
        ("size", ("arrows",)),
        ("files", ("text",)),
        ("root", ("graphs", "images")),
        ("edges", ("nodes",)),
        ("nodes", ("nodes",)),
    ):
        if getattr(settings, name) and stored.task not in tasks:
            expected = " or ".join(tasks)
            raise UserError(
                f"--{_OPTIONS.get(name, name)}: expected a run of {expected}, {settings.folder} holds {stored.task}"
            )
    for name in cls.locations if cls is not None else ():
        if not hasattr(settings, name):
            continue
        place = getattr(settings, name)
        if not place:
            named = f"the run names {data.get(name)!r:.200}, which a run folder may not choose"
            raise UserError(f"--{_OPTIONS.get(name, name)}: expected the data to measure on ({named})")
        data[name] = place
        if name == "files":
            data["digest"] = ""  # any text may be measured
            if data.get("tokenizer") is not None:
                data["tokenizer"] = str(Path(settings.folder) / TOKENIZER_FILE)
    if settings.size:
        own = data.get("image_size")
        data["test_sizes"] = [own, *(size for size in settings.size if size != own)]
    return data


def _require_model(folder: RunFolder) -> None:
    if not folder.has_model:
        remedy = "; continue it with train --resume" if folder.has_checkpoint else ""
        raise FailedRunError(f"{folder.path} holds no trained model, its first epoch was not finished{remedy}")


def load_trained(task: Task, folder: Path, device: torch.device) -> nn.Module:
    """Load the model of a run.

    Args:
        task: of the run.
        folder: of the run.
        device: where the model is to lie.

    Returns:
        The model, in evaluation mode.

    Raises:
        UserError: if it cannot be loaded, or is none of the task.
    """
    try:
        return task.load_model(folder).to(device).eval()
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot load the model in {folder}: {error}") from error


def _print(measured: dict[str, float], task: str, folder: Path, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"task": task, **measured}))
        return
    width = max(map(len, measured))
    print(f"{folder} ({task})")
    for name, value in measured.items():
        print(f"  {name.replace('_', ' '):<{width}}  {value:.4f}")


def generate(settings: GenerateSettings, machine: MachineSettings) -> int:
    """Continue a prompt with a trained language model, token by token.

    Args:
        settings: what is generated.
        machine: where.

    Returns:
        The exit code.

    Raises:
        UserError: if the folder holds no run of text, or the prompt is empty or no text.
        FailedRunError: if the run has no weights yet, or only such that predict nothing.
    """
    try:
        prompt = settings.prompt.encode()
    except UnicodeEncodeError as error:
        raise UserError("prompt: expected text in UTF-8, got bytes that are none") from error
    if not prompt:
        raise UserError("prompt: expected at least one byte, got none")
    folder = RunFolder(Path(settings.folder))
    stored = folder.read_settings()
    if stored.task != "text":
        raise UserError(f"generate: expected a run of text, {folder.path} holds {stored.task}")
    _require_model(folder)
    if machine.threads is not None:
        torch.set_num_threads(machine.threads)
    device = choose_device(machine.device)
    tokenizer = None
    if stored.data.get("tokenizer") is not None:
        tokenizer = read_tokenizer(folder.path / TOKENIZER_FILE)
    try:  # without the task: the text that the run was trained on is not needed any more
        fields = {"class_name": "pLSTMLMModel", "vocab_size": num_tokens(tokenizer)}
        model = load_fitting(folder.path, fields).to(device).eval()
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot load the model in {folder.path}: {error}") from error
    tokens = encode(prompt, tokenizer).tolist()
    if not tokens:
        raise UserError("prompt: expected at least one token, got none")
    sampling = {name: getattr(settings, name) for name in ("seed", "temperature", "top_k", "top_p")}
    stream = sample_stream(model, tokens, settings.length, device=device, **sampling)
    out = sys.stdout.buffer
    for piece in chain((prompt,), as_text(stream, tokenizer), (b"\n",)):
        out.write(piece)
        out.flush()
    return 0
