"""Which epoch of a run is kept: validation chooses it, or, without validation, it is the last."""

from collections.abc import Mapping, Sequence
from typing import Any

from plstm_torch.training.task import Task

LAST_EPOCH = "last epoch"


def choose_by(line: Mapping[str, Any], task: Task) -> str:
    """What chooses the epoch.

    Args:
        line: metrics of an epoch.
        task: says what is measured.

    Returns:
        The name of the measure on validation data, "last epoch" where nothing was measured on them.
    """
    name = f"val_{task.measure}"
    return name if name in line else LAST_EPOCH


def best_epoch(epochs: Sequence[dict[str, Any]], task: Task) -> dict[str, Any]:
    """The epoch with the best measure on validation data; of several, the one with the lowest loss there.

    Args:
        epochs: metrics of every epoch, at least one.
        task: says what is measured, and whether more of it is better.

    Returns:
        The metrics of that epoch; of the last one where nothing was measured on validation data.
    """
    name = choose_by(epochs[-1], task)
    if name == LAST_EPOCH:
        return epochs[-1]
    sign = 1 if task.more_is_better else -1
    return max(
        (line for line in epochs if name in line), key=lambda line: (sign * line[name], -line.get("val_loss", 0.0))
    )
