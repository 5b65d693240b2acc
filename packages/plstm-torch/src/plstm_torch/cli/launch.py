"""From settings to a run: folder, lock, processes, loop."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plstm_torch.optional import UserError, require
from plstm_torch.settings import RunSettings
from plstm_torch.training.cross_validation import cross_validate, delete_folds, has_folds
from plstm_torch.training.distributed import World, open_world
from plstm_torch.training.loop import train
from plstm_torch.training.report import Report
from plstm_torch.training.run_folder import SAMPLE_FILE, RunFolder
from plstm_torch.training.schedule import Schedule
from plstm_torch.training.task import Task
from plstm_torch.training.tasks import open_task

# mean and standard deviation over ten folds, from the paper
_PAPER = {"MUTAG": "0.8512 +- 0.06 (GIN: 0.825)"}


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        settings: of the run.
        out: run folder.
        resume: whether to continue the run in the folder.
        overwrite: whether to delete the run in the folder.
        extend: how many epochs a finished run is extended by.
        folds: how many folds of a cross-validation are run; None: all.
    """

    settings: RunSettings
    out: Path
    resume: bool
    overwrite: bool
    extend: int | None = None
    folds: int | None = None


def launch(request: Request) -> int:
    """Start or continue a run and print its summary.

    Args:
        request: from the command line.

    Returns:
        The exit code.

    Raises:
        UserError: if the request makes no sense, or data, a package or the folder stands in its way.
    """
    folder = _check(request)
    if request.resume and not folder.has_checkpoint:
        raise UserError(f"{folder.path} has no checkpoint to continue from; start anew with --overwrite")
    settings = request.settings
    task = open_task(settings.task, settings.data, settings.training.seed)
    if request.extend is not None:
        settings = _extended(settings, task, folder, request.extend)
    with _prepared(request, folder, replace(settings, data=task.data_settings)) as world:
        report = _report(world)
        if task.describe():
            report.message(task.describe())
        summary = train(task, settings, folder, world, report)
        if world.is_main:
            _print_summary(summary, task, folder)
    return 0


def launch_cross_validation(request: Request) -> int:
    """Start or continue a run for each fold, and print what they say together.

    Args:
        request: from the command line.

    Returns:
        The exit code.

    Raises:
        UserError: as in `launch`, or if there are fewer folds.
    """
    folder, settings = _check(request), request.settings
    if request.resume and not has_folds(folder):
        raise UserError(f"{folder.path} has no checkpoint to continue from; start anew with --overwrite")
    num_folds = settings.data["num_folds"]
    if request.folds is not None and request.folds > num_folds:
        raise UserError(f"folds: expected 1 to {num_folds}, got {request.folds}")
    # finds what is wrong before anything is deleted
    task = open_task(settings.task, settings.data, settings.training.seed)
    settings = replace(settings, data=task.data_settings)
    with _prepared(request, folder, settings) as world:
        summary = cross_validate(settings, folder, world, _report(world), request.folds or num_folds)
        if world.is_main:
            _print_folds(summary, settings.data["dataset"], folder)
    return 0


def _extended(settings: RunSettings, task: Task, folder: RunFolder, epochs: int) -> RunSettings:
    """Settings with a further schedule of so many epochs, once the run has come to its end."""
    schedule = Schedule(settings.training, -(-task.num_samples // settings.training.batch_size))
    checkpoint = folder.load_checkpoint() or {}
    stored = checkpoint.get("progress")
    step = stored.get("step") if isinstance(stored, dict) else None
    if step != schedule.total_steps:
        raise UserError(
            f"extend: expected a run that is finished, after {schedule.total_steps} steps, got one after {step!r:.80};"
            " continue it with --resume"
        )
    extensions = (*settings.training.extensions, epochs * schedule.steps_per_epoch)
    return replace(settings, training=replace(settings.training, extensions=extensions))


def _report(world: World) -> Report:
    from plstm_torch.cli.console import ConsoleReport

    return ConsoleReport() if world.is_main else Report()


def _check(request: Request) -> RunFolder:
    require("matplotlib", "matplotlib")
    require("rich", "rich")
    require("lightning_fabric", "lightning-fabric")
    folder = RunFolder(request.out)
    if not request.resume:
        folder.check_new(overwrite=request.overwrite)
    return folder


@contextmanager
def _prepared(request: Request, folder: RunFolder, settings: RunSettings) -> Iterator[World]:
    """Join the processes; the first of them locks the folder and, for a new run, starts it."""
    with (
        open_world(settings.machine, settings.training.precision) as world,
        folder.locked() if world.is_main else nullcontext(),
    ):
        if not request.resume and world.is_main:
            folder.check_new(overwrite=request.overwrite)  # again, now that nobody else can write there
            delete_folds(folder)
            folder.create(settings, overwrite=request.overwrite)
        elif request.extend is not None and world.is_main:
            folder.write_settings(settings)
        world.barrier()
        yield world


def _print_summary(summary: Mapping[str, Any], task: Task, folder: RunFolder) -> None:
    names = [name for name in summary if name.startswith(f"test_{task.measure}")]
    measured = ", ".join(f"{name.replace('_', ' ')} {summary[name]:.4f}" for name in names)
    chosen, by = summary["chosen_epoch"], summary["chosen_by"].replace("_", " ")
    print(f"epoch {chosen} of {summary['epochs']} is kept ({by}), and measured once on the test data:")
    print(f"{measured} after {summary['seconds']:.0f} s, {summary['parameters']:,} parameters")
    print(f"run folder: {folder.path}")
    sample = folder.path / SAMPLE_FILE
    if sample.exists():
        print(f"\n{sample.read_text(encoding='utf-8')}")


def _print_folds(summary: Mapping[str, Any], dataset: str, folder: RunFolder) -> None:
    deviation = summary.get("test_accuracy_deviation")
    spread = "" if deviation is None else f" +- {deviation:.4f}"
    measured = f"test accuracy {summary['test_accuracy']:.4f}{spread} over {summary['folds']} folds"
    print(f"{measured}, {summary['seconds']:.0f} s")
    if dataset in _PAPER:
        print(f"in the paper, over ten folds: {_PAPER[dataset]}")
    print(f"run folder: {folder.path}")
