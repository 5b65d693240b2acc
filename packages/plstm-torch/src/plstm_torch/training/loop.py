"""The training loop. It can be stopped at any moment and continued with the same result."""

import math
import time
from dataclasses import asdict
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from plstm_testing.datasets.random_numbers import derive_seed
from plstm_torch.optional import FailedRunError
from plstm_torch.settings import MachineSettings, RunSettings, TrainingSettings
from plstm_torch.training import plots
from plstm_torch.training.checkpoint import all_finite, load_model, load_optimizer, restore
from plstm_torch.training.distributed import World
from plstm_torch.training.optimizer import learning_rate, make_optimizer
from plstm_torch.training.order import Batch, EpochBatches, epoch_order, load
from plstm_torch.training.progress import Progress
from plstm_torch.training.report import Report
from plstm_torch.training.run_folder import CHECKPOINT_FILE, CURVES_FILE, RunFolder, cannot_write
from plstm_torch.training.task import Task

_SECONDS_BETWEEN_PICTURES = 30.0
_INITIAL_WEIGHTS, _STEP_NOISE = 1, 2


# what every epoch's line has, whatever the task
_METRICS = ("epoch", "step", "learning_rate", "train_loss", "train_accuracy", "seconds")


class TrainingDivergedError(FailedRunError):
    """A loss, gradient, weight or measure is infinite or no number; what is in the folder is from before."""

    def __init__(self, what: str, step: int) -> None:
        """Say what it is, and what can be done."""
        super().__init__(f"{what} at step {step}; try a lower --learning-rate or --gradient-clip 1, with --overwrite")


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

        def progress(stored: Any) -> None:
            self.progress = Progress.restore(stored, (*_METRICS, self.task.headline))
            step, epochs = self.progress.step, len(self.progress.epochs)
            done = self.num_epochs if step == self.total_steps else step // self.steps_per_epoch
            if step > self.total_steps:
                raise ValueError(f"step: expected at most {self.total_steps}, got {step}")
            if epochs != done:
                raise ValueError(f"epochs: expected {done} after step {step}, got {epochs}")

        parts = {
            "progress": progress,
            "model": lambda state: load_model(self.model, state),
            "optimizer": lambda state: load_optimizer(self.optimizer, state),
        }
        restore(checkpoint, self.folder.path / CHECKPOINT_FILE, parts)

    def _save(self) -> None:
        self._check_weights()
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
            TrainingDivergedError: if a loss, gradient, weight or measure is infinite or no number.
            FailedRunError: if a file cannot be written.
        """
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
            loss = self._step(batch, own, total)
            report.step(self.progress.step, loss)
            at_end = self.progress.step == begin + last
            if self.progress.step % self.machine.checkpoint_every == 0 and not at_end:
                self._save()
        self._finish_epoch(epoch, report)

    def _step(self, batch: Batch, own: int, total: int) -> float:
        """Take one step along the gradient of the mean loss over the global batch, however it is spread."""
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
            raise TrainingDivergedError(f"the loss became {sums['loss']}", progress.step + 1)
        self._limit_gradient()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        progress.epoch_loss += sums["loss"]
        progress.epoch_correct += sums["correct"]
        progress.epoch_count += predictions
        loss = sums["loss"] / predictions
        progress.add_step(loss)
        return loss

    def _limit_gradient(self) -> None:
        """Clip the gradient; one that is not finite must not reach the weights."""
        parameters, limit = list(self.model.parameters()), self.settings.gradient_clip
        if limit:
            norm = nn.utils.clip_grad_norm_(parameters, limit)
        else:
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if not torch.isfinite(norm):
            raise TrainingDivergedError(f"the gradient became {norm.item()}", self.progress.step + 1)

    def _check_weights(self) -> None:
        """Nothing that is not finite may be written."""
        means = (value for state in self.optimizer.state.values() for value in state.values())
        if not (all_finite(self.model.state_dict().values()) and all_finite(means)):
            raise TrainingDivergedError("the weights became infinite or no numbers", self.progress.step)

    def _finish_epoch(self, epoch: int, report: Report) -> None:
        progress = self.progress
        self._check_weights()
        self.model.eval()
        with torch.no_grad():
            measured = self.task.evaluate(self.model, self.world)
        for name, value in measured.items():
            if not math.isfinite(value):
                raise TrainingDivergedError(f"{name} became {value}", progress.step)
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
        try:
            self.task.save_model(self.model, self.folder.path)
        except (OSError, SafetensorError) as error:
            raise cannot_write(self.folder.path, error) from error
        now = time.monotonic()
        if summary or now - self._drawn > _SECONDS_BETWEEN_PICTURES:
            self._drawn = now
            figure = plots.curves(self.progress, self.task.headline)
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
