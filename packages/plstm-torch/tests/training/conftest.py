import json
from pathlib import Path

import pytest
import torch
from torch import nn

from plstm_torch.settings import MachineSettings, RunSettings, TrainingSettings
from plstm_torch.training import RunFolder, plots
from plstm_torch.training.distributed import open_world
from plstm_torch.training.loop import Trainer
from plstm_torch.training.report import Report
from plstm_torch.training.task import Score


class InterruptedRunError(RuntimeError):
    """Stands for a process that is killed."""


class StandInTask:
    """A tiny classification task with dropout, so that random numbers matter; dies at the batch `die_at`."""

    name = "stand-in"
    measure = "accuracy"
    more_is_better = True
    predictions_per_sample = 1

    def __init__(self, *, num_samples: int = 23, dropout: float = 0.3, die_at: int | None = None) -> None:
        generator = torch.Generator().manual_seed(5)
        self.inputs = torch.randn(num_samples, 6, generator=generator)
        self.targets = (self.inputs @ torch.randn(6, 3, generator=generator)).argmax(-1)
        self.num_samples, self.dropout, self.die_at = num_samples, dropout, die_at
        self.scored = 0
        self.measured = None  # instead of what is true
        self.finished = False
        self.looks = {"validation": 0, "test": 0}

    data_settings = property(lambda self: {})

    def batch(self, epoch, indices):
        chosen = torch.tensor(list(indices))
        return self.inputs[chosen], self.targets[chosen]

    def build_model(self, dtype):
        return nn.Sequential(nn.Linear(6, 16), nn.Dropout(self.dropout), nn.GELU(), nn.Linear(16, 3))

    def save_model(self, model, folder: Path):
        torch.save(model.state_dict(), folder / "model.safetensors")

    def load_model(self, folder: Path):
        return self.build_model("float32")

    def score(self, model, batch):
        if model.training:
            if self.scored == self.die_at:
                raise InterruptedRunError
            self.scored += 1
        logits = model(batch[0])
        loss = nn.functional.cross_entropy(logits, batch[1], reduction="sum")
        return Score(loss, (logits.argmax(-1) == batch[1]).sum(), len(batch[1]))

    def evaluate(self, model, world, split):
        prefix = {"validation": "val", "test": "test"}[split]
        self.looks[split] += 1
        if self.measured is not None:
            return {f"{prefix}_loss": self.measured, f"{prefix}_accuracy": 0.5}
        score = self.score(model, (self.inputs, self.targets))
        loss, correct = score.loss.item() / score.count, score.correct.item() / score.count
        return {f"{prefix}_loss": loss, f"{prefix}_accuracy": correct}

    def finish(self, model, device, folder):
        self.finished = True


class Bench:
    """Runs stand-in tasks in folders of their own."""

    Interrupted = InterruptedRunError
    Task = StandInTask
    Report = Report
    settings = TrainingSettings(epochs=3, batch_size=4, learning_rate=0.01, warmup_epochs=0.5, seed=3)

    def __init__(self, path: Path) -> None:
        self.path = path

    def folder(self, name: str) -> RunFolder:
        folder = RunFolder(self.path / name)
        if not folder.path.exists():
            folder.create(RunSettings(task="stand-in", training=self.settings), overwrite=False)
        return folder

    def trainer(self, name, task, *, settings=None, checkpoint_every=4, **options) -> Trainer:
        machine = MachineSettings(device="cpu", checkpoint_every=checkpoint_every, **options)
        settings = settings or self.settings
        with open_world(machine, settings.precision) as world:
            return Trainer(task, settings, machine, self.folder(name), world)

    def train(self, name, task, **options) -> Trainer:
        trainer = self.trainer(name, task, **options)
        trainer.summary = trainer.run(Report())
        return trainer

    @staticmethod
    def weights(trainer: Trainer) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])

    def metrics(self, name):
        return [json.loads(line) for line in (self.path / name / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


class BlankPicture:
    def savefig(self, path):
        path.write_bytes(b"picture")


@pytest.fixture
def no_drawing(monkeypatch):
    """Curves have tests of their own and would take most of the time in those of runs."""
    monkeypatch.setattr(plots, "curves", lambda *_: BlankPicture())
