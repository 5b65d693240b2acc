"""What a training task has to offer to the loop."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from plstm_torch.training.distributed import World
from plstm_torch.training.order import Batch
from plstm_torch.training.run_folder import RunFolder

Split = Literal["validation", "test"]


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
    measure: str  # val_measure chooses the epoch, test_measure is the result
    more_is_better: bool

    @property
    def data_settings(self) -> dict[str, Any]:
        """Settings of the task, as they stand in training.json: with the digest of the data where they are files."""

    @property
    def num_samples(self) -> int:
        """Samples in an epoch."""

    @property
    def predictions_per_sample(self) -> int:
        """How many predictions a sample holds: 1 for an image, its length for a text window."""

    def describe(self) -> str:
        """What the data are and how they are split, in one line; empty where every run of the task has the same."""

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

    def evaluate(self, model: nn.Module, world: World, split: Split) -> dict[str, float]:
        """Measure the model on data that it was not trained on; every process gets the same numbers.

        Args:
            model: in evaluation mode.
            world: the processes.
            split: which data.

        Returns:
            Measures by name, val_... or test_...; none where there are no validation data.
        """

    def finish(self, model: nn.Module, device: torch.device, folder: RunFolder) -> None:
        """Write the pictures and samples that show what the trained model does.

        Args:
            model: the trained model.
            device: where it is.
            folder: of the run.
        """
