"""Runs that are kept: one JSON file for each, made once, and made again when its settings have changed."""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from plstm_torch.settings import MachineSettings, RunSettings, TrainingSettings
from plstm_torch.training.distributed import open_world
from plstm_torch.training.loop import train
from plstm_torch.training.model_task import ModelTask
from plstm_torch.training.report import Report
from plstm_torch.training.run_folder import RunFolder

Settings = dict[str, Any]
Found = dict[str, Any]


def description() -> dict[str, Any]:
    """What computes."""
    names = {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}
    return {**names, "threads": 1, "date": time.strftime("%Y-%m-%d")}


def train_once(task: ModelTask, training: TrainingSettings) -> tuple[Found, list[Found]]:
    """Train on one thread, as the command would, in a folder that is thrown away.

    Args:
        task: data and model.
        training: how to train.

    Returns:
        What the run says at its end, `processor_seconds` among it, and a line for each epoch.
    """
    machine = MachineSettings(device="cpu", threads=1)
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place) / "run")
        whole = RunSettings(task=task.name, data=task.data_settings, training=training, machine=machine)
        folder.create(whole, overwrite=False)
        began = time.process_time()
        with open_world(machine) as world:
            summary = train(task, whole, folder, world, Report())
        lines, busy = folder.read_metrics() or [], time.process_time() - began
    return {**summary, "processor_seconds": round(busy, 3)}, [line for line in lines if "summary" not in line]


def stored(path: Path, settings: Settings) -> Found | None:
    """What a run has written, None if there is nothing or it had other settings."""
    found = json.loads(path.read_text()) if path.exists() else {}
    return found if found and _agree(found["settings"], json.loads(json.dumps(settings))) else None


def _agree(then: Any, now: Any) -> bool:
    """Whether all that stood in the settings of a run still does; a setting that is new since changes nothing."""
    if not isinstance(then, dict):
        return bool(then == now)
    return all(key in now and _agree(value, now[key]) for key, value in then.items())


def run_missing(
    out: Path, wanted: Mapping[str, Settings], run: Callable[[Settings], Found], minutes: float, measure: str
) -> None:
    """Run what is missing; no run begins after the limit.

    Args:
        out: where the files are.
        wanted: settings by the names of the files, in the order in which they are run.
        run: from settings to what is written; the `epochs` in it get a line each.
        minutes: the limit.
        measure: name of the result that is printed.
    """
    end = time.monotonic() + 60 * minutes
    out.mkdir(parents=True, exist_ok=True)
    for name, settings in wanted.items():
        path = out / f"{name}.json"
        if stored(path, settings):
            continue
        if time.monotonic() > end:
            print(f"{name} and what follows is not run: the minutes are over")
            return
        found = run(settings)
        part = path.with_suffix(".part")
        part.write_text(_lines(found))
        os.replace(part, path)
        print(f"{name}: {measure} {found[measure]:.3f} after {found['seconds']:.0f} s", flush=True)


def _lines(found: Found) -> str:
    """JSON with an epoch on each line."""
    epochs = ",\n".join(json.dumps(epoch) for epoch in found["epochs"])
    rest = json.dumps({key: value for key, value in found.items() if key != "epochs"}, indent=1)
    return f'{rest.removesuffix("}").rstrip()},\n "epochs": [\n{epochs}\n]}}\n'
