"""The training loop. It can be stopped at any moment and continued with the same result."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from plstm_testing.datasets.random_numbers import derive_seed
from plstm_torch.optional import FailedRunError
from plstm_torch.settings import MachineSettings, RunSettings, TrainingSettings
from plstm_torch.training import plots
from plstm_torch.training.checkpoint import all_finite, load_model, load_optimizer, restore
from plstm_torch.training.choice import LAST_EPOCH, best_epoch, choose_by
from plstm_torch.training.distributed import World
from plstm_torch.training.optimizer import make_optimizer
from plstm_torch.training.order import Batch, EpochBatches, epoch_order, load
from plstm_torch.training.progress import Progress
from plstm_torch.training.report import Report
from plstm_torch.training.run_folder import CHECKPOINT_FILE, CURVES_FILE, RunFolder, cannot_write
from plstm_torch.training.schedule import Schedule
from plstm_torch.training.sharding import gathered
from plstm_torch.training.task import Task

_SECONDS_BETWEEN_PICTURES = 30.0
_INITIAL_WEIGHTS, _STEP_NOISE = 1, 2
Pieces = Sequence[tuple[Batch, int]]


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
        self.schedule = Schedule(settings, -(-task.num_samples // settings.batch_size))
        torch.manual_seed(derive_seed(settings.seed, _INITIAL_WEIGHTS))
        self.model = task.build_model(settings.dtype)
        # the weights of the best epoch so far; they wait on the CPU
        self.chosen = copy.deepcopy(self.model)
        checkpoint = folder.load_checkpoint()
        self._load(checkpoint, {"progress": self._load_progress, "model": partial(load_model, self.model)})
        # earlier versions kept the last epoch: where they stopped inside one, its end comes before the next look
        kept = "chosen" in (checkpoint or {}) or any(choose_by(e, task) != LAST_EPOCH for e in self.progress.epochs)
        self._load(checkpoint, {"chosen" if kept else "model": partial(load_model, self.chosen)})
        self.model.to(world.device)
        # what is measured: where the model is sharded, a copy
        self.whole = copy.deepcopy(self.model) if world.sharded else self.model
        make = partial(make_optimizer, settings=settings)
        self.parallel, self.optimizer = world.prepare(self.model, make, compiled=machine.compile)
        self._load(checkpoint, {"optimizer": partial(load_optimizer, self.optimizer.optimizer)})
        self._started = self._drawn = time.monotonic()

    def _load(self, checkpoint: dict[str, Any] | None, parts: Mapping[str, Callable[[Any], None]]) -> None:
        if checkpoint is not None:
            restore(checkpoint, self.folder.path / CHECKPOINT_FILE, parts)

    def _load_progress(self, stored: Any) -> None:
        self.progress = Progress.restore(stored, _METRICS)
        step, epochs, total = self.progress.step, len(self.progress.epochs), self.schedule.total_steps
        if step > total:
            raise ValueError(f"step: expected at most {total}, got {step}")
        if epochs != (done := self.schedule.epochs_after(step)):
            raise ValueError(f"epochs: expected {done} after step {step}, got {epochs}")

    def _save(self) -> None:
        model, optimizer = gathered(self.model.state_dict()), gathered(self.optimizer.optimizer.state_dict())
        # nothing that is not finite may be written
        means = (value for state in optimizer["state"].values() for value in state.values())
        if not (all_finite(model.values()) and all_finite(means)):
            raise TrainingDivergedError("the weights became infinite or no numbers", self.progress.step)
        now = time.monotonic()
        self.progress.seconds += now - self._started
        self._started = now
        if self.world.is_main:
            parts = {"model": model, "chosen": self.chosen.state_dict(), "optimizer": optimizer}
            self.folder.save_checkpoint({**parts, "progress": asdict(self.progress)})

    def run(self, report: Report) -> dict[str, Any]:
        """Train to the end, measure the chosen epoch on the test data, and write everything into the folder.

        Args:
            report: receives steps and epochs.

        Returns:
            The summary, also the last line of metrics.jsonl.

        Raises:
            TrainingDivergedError: if a loss, gradient, weight or measure is infinite or no number.
            FailedRunError: if a file cannot be written.
        """
        self._say_where(report)
        with report.bar(self.schedule.total_steps, self.progress.step):
            while self.progress.step < self.schedule.total_steps:
                self._epoch(report)
        summary = self._summary()
        if self.world.is_main:
            self._write(summary)
            self.task.finish(self.chosen, self.world.device, self.folder)
        self.world.barrier()
        return summary

    def _say_where(self, report: Report) -> None:
        step, total = self.progress.step, self.schedule.total_steps
        if step and step < total:
            epoch, epochs = self.schedule.epochs_after(step) + 1, self.schedule.epochs_after(total)
            report.message(f"continues after step {step} of {total}, in epoch {epoch} of {epochs}")
        elif step:
            report.message(f"the run is finished: all {total} steps are done")

    def _epoch(self, report: Report) -> None:
        step, length = self.progress.step, self.schedule.steps_per_epoch
        epoch, end = step // length, self.schedule.end_of_epoch(step)
        order = epoch_order(self.task.num_samples, self.settings.seed, epoch)
        sizes = (self.settings.batch_size, self.world.share, self.machine.accumulate)
        batches = EpochBatches(self.task.batch, order, epoch, *sizes)
        begin = epoch * length
        for pieces, total in load(batches, step - begin, end - begin, self.machine.workers):
            loss = self._step(pieces, total)
            report.step(self.progress.step, loss)
            if self.progress.step % self.machine.checkpoint_every == 0 and self.progress.step < end:
                self._save()
        self._finish_epoch(report)

    def _step(self, pieces: Pieces, total: int) -> float:
        """Take one step along the gradient of the mean loss over the global batch, however it is spread."""
        progress, share = self.progress, self.world.share
        torch.manual_seed(derive_seed(self.settings.seed, _STEP_NOISE, progress.step, share.rank))
        for group in self.optimizer.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate(progress.step)
        self.parallel.train()
        predictions = total * self.task.predictions_per_sample
        sums = {"loss": 0.0, "correct": 0.0}
        for number, (batch, own) in enumerate(pieces, start=1):
            for name, value in self._backward(batch, own, predictions, last=number == len(pieces)).items():
                sums[name] += value
        sums = self.world.sum(sums)
        if not math.isfinite(sums["loss"]):
            raise TrainingDivergedError(f"the loss became {sums['loss']}", progress.step + 1)
        # not by Fabric, which adds up by the optimizer's groups: another order has other last bits
        norm = gathered(
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip or math.inf)
        ).item()
        if not math.isfinite(norm):  # it must not reach the weights
            raise TrainingDivergedError(f"the gradient became {norm}", progress.step + 1)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        progress.epoch_loss += sums["loss"]
        progress.epoch_correct += sums["correct"]
        progress.epoch_count += predictions
        loss = sums["loss"] / predictions
        progress.add_step(loss)
        return loss

    def _backward(self, batch: Batch, own: int, predictions: int, *, last: bool) -> dict[str, float]:
        """Add the gradient of one piece; gradients are exchanged with the last one."""
        fabric, device, counts = self.world.fabric, self.world.device, 1.0 if own else 0.0
        with fabric.no_backward_sync(self.parallel, enabled=not last):
            score = self.task.score(self.parallel, (batch[0].to(device), batch[1].to(device)))
            # the exchange of gradients takes the mean over processes, hence the factor
            fabric.backward(score.loss * (counts * self.world.share.size / predictions))
        return {"loss": counts * score.loss.item(), "correct": counts * score.correct.item()}

    def _measure(self, model: nn.Module, split: Any) -> dict[str, float]:
        with torch.no_grad():
            measured = self.task.evaluate(model.eval(), self.world, split)
        for name, value in measured.items():
            if not math.isfinite(value):
                raise TrainingDivergedError(f"{name} became {value}", self.progress.step)
        return measured

    def _finish_epoch(self, report: Report) -> None:
        progress = self.progress
        state = gathered(self.model.state_dict())
        if not all_finite(state.values()):
            raise TrainingDivergedError("the weights became infinite or no numbers", progress.step)
        if self.world.sharded:
            self.whole.load_state_dict(state)
        line = {
            "epoch": len(progress.epochs) + 1,
            "step": progress.step,
            "learning_rate": self.schedule.learning_rate(progress.step - 1),
            "train_loss": progress.epoch_loss / progress.epoch_count,
            "train_accuracy": progress.epoch_correct / progress.epoch_count,
            **self._measure(self.whole, "validation"),
            "seconds": round(progress.seconds + time.monotonic() - self._started, 3),
        }
        progress.epochs.append(line)
        if best_epoch(progress.epochs, self.task) is line:
            self.chosen.load_state_dict(state)
        progress.epoch_loss = progress.epoch_correct = progress.epoch_count = 0.0
        self._save()
        if self.world.is_main:
            self._write(None)
            report.epoch(line, self.schedule.epochs_after(self.schedule.total_steps))

    def _summary(self) -> dict[str, Any]:
        best = best_epoch(self.progress.epochs, self.task)
        measured = {name: value for name, value in best.items() if name not in ("epoch", "step", "learning_rate")}
        last = self.progress.epochs[-1]
        return {
            "summary": True,
            "task": self.task.name,
            "epochs": last["epoch"],
            "step": last["step"],
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "chosen_epoch": best["epoch"],
            "chosen_by": choose_by(best, self.task),
            **measured,
            **self._measure(self.chosen.to(self.world.device), "test"),
            "seconds": last["seconds"],
        }

    def _write(self, summary: dict[str, Any] | None) -> None:
        lines = [*self.progress.epochs, *([summary] if summary else [])]
        self.folder.write_metrics(lines)
        try:
            self.task.save_model(self.chosen, self.folder.path)
        except (OSError, SafetensorError) as error:
            raise cannot_write(self.folder.path, error) from error
        now = time.monotonic()
        if summary or now - self._drawn > _SECONDS_BETWEEN_PICTURES:
            self._drawn = now
            figure = plots.curves(self.progress, f"val_{self.task.measure}")
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
