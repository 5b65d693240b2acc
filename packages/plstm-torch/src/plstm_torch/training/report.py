"""What the loop tells of a run. The command line shows it (`plstm_torch.cli.console`)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Report:
    """Receives the loop's news; this one stays silent."""

    @contextmanager
    def bar(self, total_steps: int, first: int) -> Iterator[None]:
        """Enclose the run."""
        yield

    def step(self, step: int, loss: float) -> None:
        """Take note of a step."""

    def epoch(self, line: Mapping[str, float], epochs: int) -> None:
        """Take note of an epoch's metrics."""

    def message(self, text: str) -> None:
        """Say something in words."""
