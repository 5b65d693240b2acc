"""From options to a run: settings, folder, processes, loop."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from plstm_torch.optional import UserError, require
from plstm_torch.training.cross_validation import cross_validate, delete_folds
from plstm_torch.training.distributed import World, open_world
from plstm_torch.training.loop import train
from plstm_torch.training.report import ConsoleReport, Report
from plstm_torch.training.run_folder import RunFolder
from plstm_torch.training.settings import MachineSettings, RunSettings, TrainingSettings
from plstm_torch.training.task import Task, open_task


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line asks for; the mappings hold given options only.

    Attributes:
        task: name of the task.
        out: run folder.
        resume: whether to continue the run in the folder.
        overwrite: whether to delete the run in the folder.
        data: the task's settings.
        training: training settings.
        machine: machine settings.
    """

    task: str
    out: Path
    resume: bool
    overwrite: bool
    data: Mapping[str, Any]
    training: Mapping[str, Any]
    machine: Mapping[str, Any]


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def launch(request: Request, data_defaults: Mapping[str, Any], training_defaults: TrainingSettings) -> None:
    """Start or continue a run and print its summary.

    Args:
        request: from the command line.
        data_defaults: the task's settings where nothing is given.
        training_defaults: training settings where nothing is given.

    Raises:
        UserError: if the request makes no sense, or data, a package or the folder stands in its way.
    """
    folder, settings = _prepare(request, data_defaults, training_defaults)
    task = open_task(settings.task, settings.data, settings.training.seed)
    with open_world(settings.machine.device) as world:
        if not request.resume and world.is_main:
            folder.create(replace(settings, data=task.data_settings), overwrite=request.overwrite)
        world.barrier()
        summary = train(task, settings, folder, world, ConsoleReport() if world.is_main else Report())
        _print_summary(summary, task, folder, world)


def launch_cross_validation(
    request: Request, data_defaults: Mapping[str, Any], training_defaults: TrainingSettings, folds: int | None
) -> dict[str, Any] | None:
    """Start or continue a run for each fold.

    Args:
        request: from the command line.
        data_defaults: the task's settings where nothing is given.
        training_defaults: training settings where nothing is given.
        folds: how many folds are run; None: all.

    Returns:
        The summary, None in processes other than the first.

    Raises:
        UserError: as in `launch`, or if there are fewer folds.
    """
    folder, settings = _prepare(request, data_defaults, training_defaults)
    num_folds = settings.data["num_folds"]
    if folds is not None and not 1 <= folds <= num_folds:
        raise UserError(f"--folds {folds}: expected 1 to {num_folds}")
    open_task(settings.task, settings.data, settings.training.seed)  # finds what is wrong before anything is deleted
    with open_world(settings.machine.device) as world:
        if not request.resume and world.is_main:
            folder.create(settings, overwrite=request.overwrite)
            delete_folds(folder)
        world.barrier()
        report = ConsoleReport() if world.is_main else Report()
        summary = cross_validate(settings, folder, world, report, folds or num_folds)
        return summary if world.is_main else None


def _prepare(
    request: Request, data_defaults: Mapping[str, Any], training_defaults: TrainingSettings
) -> tuple[RunFolder, RunSettings]:
    """The folder and the settings of a new or a resumed run."""
    if request.resume and request.overwrite:
        raise UserError("--resume and --overwrite exclude each other")
    require("matplotlib", "matplotlib")
    folder = RunFolder(request.out)
    if request.resume:
        settings = _resumed(folder.read_settings(), request)
    else:
        folder.check_new(overwrite=request.overwrite)
        settings = _new(request, data_defaults, training_defaults)
    return folder, settings


def _new(request: Request, data_defaults: Mapping[str, Any], training_defaults: TrainingSettings) -> RunSettings:
    try:
        training = replace(training_defaults, **request.training)
        machine = replace(MachineSettings(), **request.machine)
    except ValueError as error:
        raise UserError(str(error)) from error
    return RunSettings(task=request.task, data={**data_defaults, **request.data}, training=training, machine=machine)


def _resumed(stored: RunSettings, request: Request) -> RunSettings:
    """Return the stored settings with this machine's options; anything else has to agree."""
    if stored.task != request.task:
        raise UserError(f"{request.out} holds a run of {stored.task!r}, not of {request.task!r}")
    known = {**stored.data, **asdict(stored.training)}
    for name, value in {**request.data, **request.training}.items():
        kept = known[name]
        if (list(value) if isinstance(value, tuple) else value) != kept:
            raise UserError(f"{name}={value!r}: a resumed run keeps its settings, here {name}={kept!r}")
    try:
        return replace(stored, machine=replace(stored.machine, **request.machine))
    except ValueError as error:
        raise UserError(str(error)) from error


def _print_summary(summary: Mapping[str, Any], task: Task, folder: RunFolder, world: World) -> None:
    if world.is_main:
        console = Console(highlight=False, soft_wrap=True)
        names = [name for name in summary if name.startswith(task.headline)]
        measured = ", ".join(f"{name.replace('_', ' ')} {summary[name]:.4f}" for name in names)
        console.print(f"[bold]{measured}[/bold] after {summary['seconds']:.0f} s, {summary['parameters']:,} parameters")
        console.print(f"run folder: {folder.path}")
