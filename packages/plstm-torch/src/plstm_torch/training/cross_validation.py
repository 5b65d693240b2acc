"""Cross-validation: one run per fold, in folders of their own, then what they say together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from plstm_torch.optional import UserError
from plstm_torch.settings import RunSettings
from plstm_torch.training import plots
from plstm_torch.training.distributed import World
from plstm_torch.training.graph_task import CONFUSION
from plstm_torch.training.loop import train
from plstm_torch.training.progress import is_line
from plstm_torch.training.report import Report
from plstm_torch.training.run_folder import CONFUSION_FILE, CURVES_FILE, METRICS_FILE, SETTINGS_FILE, RunFolder
from plstm_torch.training.tasks import open_task

_MEASURES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
_OF_EPOCHS = ("epoch", "seconds", *_MEASURES)
_NOT_OF_A_FOLD = ("summary", "task", "epochs", "step", "parameters")
_OF_SUMMARY = ("chosen_epoch", "val_accuracy", "test_accuracy", "seconds")


def fold_folder(path: Path, fold: int) -> RunFolder:
    """The run folder of one fold."""
    return RunFolder(path / f"fold_{fold}")


def has_folds(folder: RunFolder) -> bool:
    """Whether any fold has begun."""
    return any(RunFolder(path).has_checkpoint for path in folder.path.glob("fold_*"))


def delete_folds(folder: RunFolder) -> None:
    """Delete the runs of all folds, and nothing else that lies in their folders."""
    for path in sorted(folder.path.glob("fold_*")):
        if (path / SETTINGS_FILE).exists():
            RunFolder(path).delete()
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def cross_validate(
    settings: RunSettings, folder: RunFolder, world: World, report: Report, num_runs: int
) -> dict[str, Any]:
    """Train on every fold that is not finished, and write the summary.

    Args:
        settings: of the whole; `settings.data["fold"]` is replaced by each fold in turn.
        folder: of the whole, already created.
        world: the processes.
        report: receives steps and epochs.
        num_runs: how many of the folds are run.

    Returns:
        The summary, also the last line of metrics.jsonl: mean and standard deviation of the test accuracy at the epoch
        of the best validation.
    """
    lines: list[dict[str, Any]] = []
    histories = []
    for fold in range(num_runs):
        own = fold_folder(folder.path, fold)
        finished = _finished(own)
        if finished is None:
            report.message(f"fold {fold + 1} of {num_runs}")
            _run_fold(replace(settings, data={**settings.data, "fold": fold}), own, world, report)
            finished = _finished(own) or []
        *epochs, line = finished
        histories.append(epochs)
        lines.append({"fold": fold, **_of_fold(line)})
        report.message(f"fold {fold + 1}: test accuracy {line['test_accuracy']:.4f} at epoch {line['chosen_epoch']}")
        world.barrier()
    summary = summarize(lines)
    if world.is_main:
        folder.write_metrics([*lines, summary])
        folder.save_picture(CURVES_FILE, plots.fold_curves(histories).savefig)
        folder.save_picture(CONFUSION_FILE, plots.confusion(sum_confusion(lines)).savefig)
    world.barrier()
    return summary


def summarize(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over folds; one fold has none.

    Args:
        lines: metrics of each fold at the epoch that its validation graphs chose.

    Returns:
        The last line of metrics.jsonl.
    """
    accuracies = [line["test_accuracy"] for line in lines]
    deviation = {"test_accuracy_deviation": stdev(accuracies)} if len(accuracies) > 1 else {}
    return {
        "summary": True,
        "task": "graphs",
        "folds": len(lines),
        "test_accuracy": fmean(accuracies),
        **deviation,
        "seconds": sum(line["seconds"] for line in lines),
    }


def sum_confusion(lines: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Add up how often each class was taken for which.

    Args:
        lines: metrics of each fold.

    Returns:
        Counts [true class, predicted class].

    Raises:
        UserError: if the folds do not have the same classes.
    """
    sizes = sorted({_num_classes(line) for line in lines})
    if len(sizes) > 1:
        raise UserError(f"cannot sum up the folds: expected the same number of classes in all, got {sizes}")
    (size,) = sizes
    counts = np.zeros((size, size))
    for line in lines:
        for truth, answer in np.ndindex(size, size):
            counts[truth, answer] += line[f"{CONFUSION}{truth}_{answer}"]
    return counts


def _finished(folder: RunFolder) -> list[dict[str, Any]] | None:
    """Metrics of every epoch, then the summary, if the run is complete."""
    lines = folder.read_metrics()
    if not lines or not lines[-1].get("summary"):
        return None
    *epochs, summary = lines
    own = {name: value for name, value in _of_fold(summary).items() if name != "chosen_by"}  # which is no number
    if not (epochs and all(is_line(line, _OF_EPOCHS) for line in epochs) and is_line(own, _OF_SUMMARY)):
        expected = f"{', '.join(_OF_EPOCHS)} of every epoch, {', '.join(_OF_SUMMARY)} of the summary"
        raise UserError(f"cannot read {folder.path / METRICS_FILE}: expected the numbers {expected}")
    if not _num_classes(own):
        raise UserError(f"cannot read {folder.path / METRICS_FILE}: expected {CONFUSION}* for all pairs of classes")
    return lines


def _of_fold(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the summary of a fold says of this fold alone."""
    return {name: value for name, value in summary.items() if name not in _NOT_OF_A_FOLD}


def _num_classes(line: Mapping[str, Any]) -> int:
    """The number of classes of which a line says how often each was taken for which, zero if it does not say all."""
    size = math.isqrt(sum(name.startswith(CONFUSION) for name in line))
    return size if all(f"{CONFUSION}{truth}_{answer}" in line for truth, answer in np.ndindex(size, size)) else 0


def _run_fold(settings: RunSettings, folder: RunFolder, world: World, report: Report) -> None:
    task = open_task(settings.task, settings.data, settings.training.seed)
    if world.is_main and not (folder.path / SETTINGS_FILE).exists():
        folder.create(replace(settings, data=task.data_settings), overwrite=False)
    world.barrier()
    train(task, settings, folder, world, report)
