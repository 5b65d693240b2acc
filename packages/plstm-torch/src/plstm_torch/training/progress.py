"""How far a run has come: plain numbers of bounded size, part of the checkpoint."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

_MOST_LOSSES = 4096


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        step: optimizer steps done.
        seconds: time spent, over all parts of an interrupted run.
        epoch_loss: sum of the losses in the current epoch.
        epoch_correct: right predictions in the current epoch.
        epoch_count: predictions in the current epoch.
        step_losses: the curve of the loss: each entry is the mean over `steps_per_loss` successive steps.
        steps_per_loss: 1 at first; it doubles whenever the curve has become long.
        open_loss: sum of the losses of the steps after the curve's last entry.
        epochs: metrics of every finished epoch.
    """

    step: int = 0
    seconds: float = 0.0
    epoch_loss: float = 0.0
    epoch_correct: float = 0.0
    epoch_count: float = 0.0
    step_losses: list[float] = field(default_factory=list)
    steps_per_loss: int = 1
    open_loss: float = 0.0
    epochs: list[dict[str, float]] = field(default_factory=list)

    def add_step(self, loss: float) -> None:
        """Count a step.

        Args:
            loss: mean loss of its predictions.
        """
        self.step += 1
        self.open_loss += loss
        if self.step % self.steps_per_loss == 0:
            self.step_losses.append(self.open_loss / self.steps_per_loss)
            self.open_loss = 0.0
            self._thin_out()

    def _thin_out(self) -> None:
        while len(self.step_losses) >= _MOST_LOSSES:
            halved = len(self.step_losses) // 2
            rest = self.step_losses[2 * halved :]
            self.step_losses = [sum(self.step_losses[2 * i : 2 * i + 2]) / 2 for i in range(halved)]
            self.open_loss += sum(rest) * self.steps_per_loss
            self.steps_per_loss *= 2

    @classmethod
    def restore(cls, stored: Any, metrics: Sequence[str]) -> "Progress":
        """Read what a checkpoint holds.

        Args:
            stored: from `dataclasses.asdict`, by this or an earlier version, possibly damaged.
            metrics: what the metrics of an epoch hold at least.

        Returns:
            The progress.

        Raises:
            ValueError: naming the field, what was expected and what came.
        """
        known = {entry.name for entry in fields(cls)}
        if not isinstance(stored, dict) or set(stored) - known:
            raise ValueError(f"progress: expected a dictionary of {', '.join(sorted(known))}, got {stored!r:.80}")
        progress = cls(**stored)
        for name in ("step", "steps_per_loss"):
            value = getattr(progress, name)
            _expect(type(value) is int and value >= 0, name, "an integer of at least 0", value)
        for name in ("seconds", "epoch_loss", "epoch_correct", "epoch_count", "open_loss"):
            _expect(is_number(getattr(progress, name)), name, "a finite number", getattr(progress, name))
        losses = progress.step_losses
        right = isinstance(losses, list) and all(map(is_number, losses))
        _expect(right, "step_losses", "a list of finite numbers", losses)
        counted = progress.steps_per_loss >= 1 and len(losses) == progress.step // progress.steps_per_loss
        _expect(
            counted, "step_losses", f"one for every {progress.steps_per_loss} of {progress.step} steps", len(losses)
        )
        right = isinstance(progress.epochs, list) and all(is_line(line, metrics) for line in progress.epochs)
        _expect(right, "epochs", f"a list of numbers for each of {', '.join(metrics)}", progress.epochs)
        progress._thin_out()
        return progress


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, and no integer beyond what a float can hold."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def is_line(line: Any, metrics: Sequence[str]) -> bool:
    """Whether something is the metrics of an epoch: numbers by name, those of `metrics` among them."""
    return (
        isinstance(line, dict)
        and all(isinstance(name, str) and is_number(value) for name, value in line.items())
        and all(name in line for name in metrics)
    )


def _expect(holds: bool, name: str, expected: str, value: Any) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {expected}, got {value!r:.80}")
