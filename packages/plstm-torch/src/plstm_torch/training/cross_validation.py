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

_SPLITS, _MEASURES = ("train", "val", "test"), ("loss", "accuracy")
# what is read of every epoch, besides how often each class was taken for which
_METRICS = ("epoch", "seconds", *(f"{split}_{measure}" for split in _SPLITS for measure in _MEASURES))


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
        epochs = _finished(own)
        if epochs is None:
            report.message(f"fold {fold + 1} of {num_runs}")
            _run_fold(replace(settings, data={**settings.data, "fold": fold}), own, world, report)
            epochs = _finished(own) or []
        histories.append(epochs)
        best = best_epoch(epochs)
        lines.append({"fold": fold, **best, "seconds": epochs[-1]["seconds"]})
        report.message(f"fold {fold + 1}: test accuracy {best['test_accuracy']:.4f} at epoch {best['epoch']}")
        world.barrier()
    summary = summarize(lines)
    if world.is_main:
        folder.write_metrics([*lines, summary])
        folder.save_picture(CURVES_FILE, plots.fold_curves(histories).savefig)
        folder.save_picture(CONFUSION_FILE, plots.confusion(sum_confusion(lines)).savefig)
    world.barrier()
    return summary


def best_epoch(epochs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The epoch with the best validation accuracy; of several, the one with the lowest validation loss.

    Args:
        epochs: metrics of every epoch.

    Returns:
        The metrics of that epoch.
    """
    return dict(max(epochs, key=lambda line: (line["val_accuracy"], -line["val_loss"])))


def summarize(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over folds; one fold has none.

    Args:
        lines: metrics of each fold at its best epoch.

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


def _finished(folder: RunFolder) -> list[dict[str, float]] | None:
    """Metrics of every epoch if the run is complete."""
    lines = folder.read_metrics()
    if not lines or not lines[-1].get("summary"):
        return None
    *epochs, _ = lines
    if not epochs or not all(is_line(line, _METRICS) and _num_classes(line) for line in epochs):
        names = ", ".join((*_METRICS, CONFUSION + "*"))
        raise UserError(f"cannot read {folder.path / METRICS_FILE}: expected the numbers {names} of every epoch")
    return epochs


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
