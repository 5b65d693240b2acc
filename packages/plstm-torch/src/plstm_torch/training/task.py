"""What a training task has to offer to the loop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from plstm_torch.optional import UserError
from plstm_torch.training.distributed import World
from plstm_torch.training.order import Batch
from plstm_torch.training.run_folder import RunFolder

TASK_NAMES = ("digits", "arrows", "text", "graphs")


@dataclass(frozen=True)
class Score:
    """Sums over the predictions of a batch.

    Attributes:
        loss: sum of the cross entropies in nats, differentiable.
        correct: how many predictions were right.
        count: number of predictions.
    """

    loss: Tensor
    correct: Tensor
    count: int


class Task(Protocol):
    """Data, model and measures of one training task."""

    name: str
    headline: str

    @property
    def data_settings(self) -> dict[str, Any]:
        """Settings of the task, as they stand in training.json."""

    @property
    def num_samples(self) -> int:
        """Samples in an epoch."""

    @property
    def predictions_per_sample(self) -> int:
        """How many predictions a sample holds: 1 for an image, its length for a text window."""

    def batch(self, epoch: int, indices: Sequence[int]) -> Batch:
        """Return inputs and targets, a function of the arguments and the settings only."""

    def build_model(self, dtype: str) -> nn.Module:
        """Make the model; torch's random state decides its initial weights."""

    def save_model(self, model: nn.Module, folder: Path) -> None:
        """Write config.json and model.safetensors into a folder."""

    def load_model(self, folder: Path) -> nn.Module:
        """Read what `save_model` wrote."""

    def score(self, model: nn.Module, batch: Batch) -> Score:
        """Run the model on a batch and measure its predictions."""

    def evaluate(self, model: nn.Module, world: World) -> dict[str, float]:
        """Measure the model on held-out data; every process gets the same numbers."""

    def finish(self, model: nn.Module, device: torch.device, folder: RunFolder) -> None:
        """Write the pictures and samples that show what the trained model does."""


def open_task(name: str, data: Mapping[str, Any], seed: int) -> Task:
    """Make a task from its name and settings, and load or prepare its data.

    Args:
        name: one of `TASK_NAMES`.
        data: the task's settings as in training.json.
        seed: of the run.

    Returns:
        The task.

    Raises:
        UserError: if the name or a setting is unknown or out of range, or data or a package is missing.
    """
    # imported here, since the tasks build models and this module is imported with the settings alone
    from plstm_torch.training.graph_task import GraphsTask
    from plstm_torch.training.image_tasks import ArrowsTask, DigitsTask
    from plstm_torch.training.text_task import TextTask

    tasks: dict[str, type[DigitsTask | ArrowsTask | TextTask | GraphsTask]] = {
        "digits": DigitsTask,
        "arrows": ArrowsTask,
        "text": TextTask,
        "graphs": GraphsTask,
    }
    if name not in tasks:
        raise UserError(f"task={name!r}: expected one of {', '.join(TASK_NAMES)}")
    try:
        return tasks[name].from_settings(data, seed)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
