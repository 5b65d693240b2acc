"""What all tasks of this package share: a model from a config, and scores by cross entropy."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from plstm_config import pLSTMLMModelConfig
from plstm_config.checks import check_causal
from plstm_config.folder import CONFIG_FILE, read_config
from plstm_torch.build import build
from plstm_torch.pretrained import from_pretrained, save_pretrained
from plstm_torch.settings import Settings
from plstm_torch.training.distributed import World
from plstm_torch.training.order import Batch
from plstm_torch.training.task import Score, Split

PREFIX: dict[Split, str] = {"validation": "val", "test": "test"}
# what has to be right before a model can be called at all
_INTERFACES = {
    "pLSTMVisionModel": ("num_channels", "channels_first", "has_head", "output_shape"),
    "pLSTMLMModel": ("vocab_size",),
    "pLSTMGraphModel": ("input_dim", "edge_input_dim", "output_dim"),
}


class ModelTask(ABC):
    """Builds, saves, loads and scores the model; the subclasses bring data and config.

    Attributes:
        measure: what is measured: val_measure chooses the epoch, test_measure is the result.
        more_is_better: whether the best epoch is that of the highest measure.
        settings: of data and model.
        seed: of the run.
    """

    measure = "accuracy"
    more_is_better = True
    settings: Settings
    seed: int

    @property
    def data_settings(self) -> dict[str, Any]:
        """Settings of the task, as they stand in training.json."""
        return asdict(self.settings)

    @abstractmethod
    def model_config(self, dtype: str) -> Any:
        """Return the model's config."""

    def build_model(self, dtype: str) -> nn.Module:
        """Make the model; torch's random state decides its initial weights."""
        return build(self.model_config(dtype))

    def save_model(self, model: nn.Module, folder: Path) -> None:
        """Write config.json and model.safetensors into a folder."""
        save_pretrained(model, folder)

    def load_model(self, folder: Path) -> nn.Module:
        """Read what `save_model` wrote; see `load_fitting`."""
        own = self.model_config("float32")
        names = ("class_name", *_INTERFACES[own.class_name])
        return load_fitting(folder, {name: getattr(own, name) for name in names})

    def describe(self) -> str:
        """What the data are, in one line for who starts a run; see `Task.describe`."""
        return ""

    def score(self, model: nn.Module, batch: Batch) -> Score:
        """Run the model on a batch and measure its predictions."""
        inputs, targets = batch
        return score_logits(model(inputs), targets)


def load_fitting(folder: Path, fields: Mapping[str, Any]) -> nn.Module:
    """Load a model that may be a stranger's, once its config says that it can be called as the run calls it.

    Args:
        folder: of the model.
        fields: values that fields of its config have to have.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: if a field has another value, a language model is not causal, or as `from_pretrained` does.
        FileNotFoundError: if a file is missing.
    """
    config = read_config(folder)
    for name, value in fields.items():
        found = getattr(config, name, None)
        if found != value:
            raise ValueError(f"{folder / CONFIG_FILE}: {name}: expected {value!r}, as the run needs, got {found!r:.80}")
    if isinstance(config, pLSTMLMModelConfig):
        check_causal(config.kind, config.class_name, ["text"])
    return from_pretrained(folder)


def score_logits(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Score:
    """Compare logits with the right answers, in float32 or higher.

    Args:
        logits: [..., V].
        targets: [...] int64.
        label_smoothing: share of each target that is spread evenly over all classes.

    Returns:
        Sums over all predictions.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten(0, -2)
    targets = targets.flatten()
    loss = functional.cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing)
    correct = (logits.argmax(-1) == targets).sum()
    return Score(loss, correct, targets.numel())


def means(sums: Mapping[str, float], world: World) -> tuple[float, float]:
    """Return mean loss and accuracy over all processes.

    Args:
        sums: "loss", "correct" and "count" of this process.
        world: the processes.

    Returns:
        Mean loss in nats, and the share of right predictions.
    """
    total = world.sum(sums)
    return total["loss"] / total["count"], total["correct"] / total["count"]


def described_split(what: str, train: int, validation: int, test: int) -> str:
    """Say how many samples are trained on, choose the epoch and are measured.

    Args:
        what: the samples, as "images".
        train: how many of them are trained on.
        validation: how many choose the epoch.
        test: how many are measured.

    Returns:
        A clause for `Task.describe`.
    """
    chosen = f"{validation:,} choose the epoch" if validation else "none chooses the epoch"
    return f"{train:,} {what} to train on, {chosen}, {test:,} to test"
