"""The training loop. It can be stopped at any moment and continued with the same result."""

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from plstm_torch.data.random_numbers import derive_seed
from plstm_torch.optional import UserError
from plstm_torch.training import plots
from plstm_torch.training.distributed import World
from plstm_torch.training.optimizer import learning_rate, make_optimizer
from plstm_torch.training.order import Batch, EpochBatches, epoch_order, load
from plstm_torch.training.report import Report
from plstm_torch.training.run_folder import CURVES_FILE, RunFolder
from plstm_torch.training.settings import MachineSettings, RunSettings, TrainingSettings
from plstm_torch.training.task import Task

_SECONDS_BETWEEN_PICTURES = 30.0
_INITIAL_WEIGHTS, _STEP_NOISE = 1, 2


class TrainingDivergedError(RuntimeError):
    """The loss is no longer a number; the last checkpoint is from before."""


@dataclass
class Progress:
    """How far a run has come; plain numbers, part of the checkpoint.

    Attributes:
        step: optimizer steps done.
        seconds: time spent, over all parts of an interrupted run.
        epoch_loss: sum of the losses in the current epoch.
        epoch_correct: right predictions in the current epoch.
        epoch_count: predictions in the current epoch.
        step_losses: mean loss of every step.
        epochs: metrics of every finished epoch.
    """

    step: int = 0
    seconds: float = 0.0
    epoch_loss: float = 0.0
    epoch_correct: float = 0.0
    epoch_count: float = 0.0
    step_losses: list[float] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """One run in one process."""

    def __init__(
        self, task: Task, settings: TrainingSettings, machine: MachineSettings, folder: RunFolder, world: World
    ) -> None:
        """Make model and optimizer, and continue from the folder's checkpoint if there is one.

        Args:
            task: data, model and measures.
            settings: how the weights are trained.
            machine: where it is computed.
            folder: of the run, already created.
            world: the processes.
        """
        self.task, self.settings, self.machine = task, settings, machine
        self.folder, self.world = folder, world
        self.progress = Progress()
        self.steps_per_epoch = -(-task.num_samples // settings.batch_size)
        self.total_steps = settings.steps or settings.epochs * self.steps_per_epoch
        self.num_epochs = -(-self.total_steps // self.steps_per_epoch)
        torch.manual_seed(derive_seed(settings.seed, _INITIAL_WEIGHTS))
        self.model = task.build_model(settings.dtype).to(world.device)
        self.optimizer = make_optimizer(self.model, settings)
        self._load(folder.load_checkpoint())
        self.parallel = world.wrap(self.model)
        self._started = self._drawn = time.monotonic()

    def _load(self, checkpoint: dict[str, Any] | None) -> None:
        if checkpoint is None:
            return
        try:
            self.model.load_state_dict(checkpoint["model"])
            self.optimizer.load_state_dict(checkpoint["optimizer"])
            self.progress = Progress(**checkpoint["progress"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(f"the checkpoint in {self.folder.path} does not fit its settings") from error

    def _save(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self._started
        self._started = now
        if self.world.is_main:
            model, optimizer = self.model.state_dict(), self.optimizer.state_dict()
            self.folder.save_checkpoint({"model": model, "optimizer": optimizer, "progress": asdict(self.progress)})

    def run(self, report: Report) -> dict[str, Any]:
        """Train to the end and write everything that belongs into the folder.

        Args:
            report: receives steps and epochs.

        Returns:
            The summary, also the last line of metrics.jsonl.

        Raises:
            TrainingDivergedError: if the loss is infinite or no number.
        """
        if self.world.is_main and self.progress.step == 0:
            self.task.save_model(self.model, self.folder.path)
        with report.bar(self.total_steps, self.progress.step):
            while self.progress.step < self.total_steps:
                self._epoch(self.progress.step // self.steps_per_epoch, report)
        summary = self._summary()
        if self.world.is_main:
            self._write(summary)
            self.task.finish(self.model, self.world.device, self.folder)
        self.world.barrier()
        return summary

    def _epoch(self, epoch: int, report: Report) -> None:
        order = epoch_order(self.task.num_samples, self.settings.seed, epoch)
        batches = EpochBatches(self.task.batch, order, epoch, self.settings.batch_size, self.world)
        begin = epoch * self.steps_per_epoch
        last = min(self.steps_per_epoch, self.total_steps - begin)
        for batch, own, total in load(batches, self.progress.step - begin, last, self.machine.workers):
            self._step(batch, own, total)
            report.step(self.progress.step, self.progress.step_losses[-1])
            at_end = self.progress.step == begin + last
            if self.progress.step % self.machine.checkpoint_every == 0 and not at_end:
                self._save()
        self._finish_epoch(epoch, report)

    def _step(self, batch: Batch, own: int, total: int) -> None:
        """Take one step along the gradient of the mean over the global batch, however it is spread."""
        progress, settings = self.progress, self.settings
        torch.manual_seed(derive_seed(settings.seed, _STEP_NOISE, progress.step, self.world.rank))
        rate = learning_rate(progress.step, self.total_steps, self.steps_per_epoch, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.parallel.train()
        score = self.task.score(self.parallel, (batch[0].to(self.world.device), batch[1].to(self.world.device)))
        counts = 1.0 if own else 0.0
        predictions = total * self.task.predictions_per_sample
        # the exchange of gradients takes the mean over processes, hence the factor
        (score.loss * (counts * self.world.size / predictions)).backward()
        own_sums = {"loss": counts * score.loss.item(), "correct": counts * score.correct.item()}
        sums = self.world.sum(own_sums)
        if not math.isfinite(sums["loss"]):
            raise TrainingDivergedError(
                f"the loss became {sums['loss']} at step {progress.step + 1}; try a lower --learning-rate"
            )
        if settings.gradient_clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), settings.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        progress.epoch_loss += sums["loss"]
        progress.epoch_correct += sums["correct"]
        progress.epoch_count += predictions
        progress.step_losses.append(sums["loss"] / predictions)

    def _finish_epoch(self, epoch: int, report: Report) -> None:
        progress = self.progress
        self.model.eval()
        with torch.no_grad():
            measured = self.task.evaluate(self.model, self.world)
        line = {
            "epoch": epoch + 1,
            "step": progress.step,
            "learning_rate": learning_rate(progress.step - 1, self.total_steps, self.steps_per_epoch, self.settings),
            "train_loss": progress.epoch_loss / progress.epoch_count,
            "train_accuracy": progress.epoch_correct / progress.epoch_count,
            **measured,
            "seconds": round(progress.seconds + time.monotonic() - self._started, 3),
        }
        progress.epochs.append(line)
        progress.epoch_loss = progress.epoch_correct = progress.epoch_count = 0.0
        self._save()
        if self.world.is_main:
            self._write(None)
            report.epoch(line, self.num_epochs)

    def _summary(self) -> dict[str, Any]:
        last = self.progress.epochs[-1]
        measured = {name: value for name, value in last.items() if name not in ("epoch", "learning_rate")}
        return {
            "summary": True,
            "task": self.task.name,
            "epochs": self.num_epochs,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            **measured,
        }

    def _write(self, summary: dict[str, Any] | None) -> None:
        lines = [*self.progress.epochs, *([summary] if summary else [])]
        self.folder.write_metrics(lines)
        self.task.save_model(self.model, self.folder.path)
        now = time.monotonic()
        if summary or now - self._drawn > _SECONDS_BETWEEN_PICTURES:
            self._drawn = now
            figure = plots.curves(self.progress.step_losses, self.progress.epochs, self.task.headline)
            self.folder.save_picture(CURVES_FILE, figure.savefig)


def train(task: Task, settings: RunSettings, folder: RunFolder, world: World, report: Report) -> dict[str, Any]:
    """Train a task in a run folder that was created for it, from its checkpoint if it has one.

    Args:
        task: data, model and measures.
        settings: of the run.
        folder: of the run.
        world: the processes.
        report: receives steps and epochs.

    Returns:
        The summary, also the last line of metrics.jsonl.
    """
    if settings.machine.threads is not None:
        torch.set_num_threads(settings.machine.threads)
    return Trainer(task, settings.training, settings.machine, folder, world).run(report)
