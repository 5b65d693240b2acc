"""What a person sees during a run: a bar on stderr, one line per epoch on stdout."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from plstm_torch.training.report import Report


class ConsoleReport(Report):
    """Shows the news with rich."""

    def __init__(self) -> None:
        """Open stdout for lines and stderr for the bar."""
        self.lines = Console(highlight=False, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn())
        errors = Console(stderr=True)
        self.progress = Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)
        self.job = self.progress.add_task("training")

    @contextmanager
    def bar(self, total_steps: int, first: int) -> Iterator[None]:
        """Show the bar while the run lasts."""
        self.progress.update(self.job, total=total_steps, completed=first)
        with self.progress:
            yield

    def step(self, step: int, loss: float) -> None:
        """Move the bar."""
        self.progress.update(self.job, completed=step, description=f"loss {loss:.4f}")

    def epoch(self, line: Mapping[str, float], epochs: int) -> None:
        """Print one line."""
        hidden = ("epoch", "step", "seconds", "learning_rate", "train_accuracy", "val_loss")
        shown = {k: v for k, v in line.items() if k not in hidden and not k.startswith("confusion_")}
        numbers = "  ".join(f"{k.replace('_', ' ')} {v:.4f}" for k, v in shown.items())
        self.lines.print(f"epoch {line['epoch']:>3.0f}/{epochs}  {numbers}  {line['seconds']:.0f} s")

    def message(self, text: str) -> None:
        """Print a line."""
        self.lines.print(text)
