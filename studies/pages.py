"""Tables and curves of the pages of the studies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def accuracy(shares: Sequence[float]) -> list[str]:
    """Two cells in percent: mean and deviation of the seeds, and each of them."""
    each = 100 * np.asarray(shares)
    deviation = f" +- {each.std(ddof=1):.1f}" if len(each) > 1 else ""
    return [f"{each.mean():.1f} %{deviation}", ", ".join(f"{value:.1f}" for value in each)]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lines of Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]])


def with_table(page: str, written: str) -> str:
    """A page with its table of the same header written anew.

    Raises:
        ValueError: if no table, or more than one, of the page has that header.
    """
    header = written.splitlines()[0]
    found, times = re.subn(rf"^{re.escape(header)}\n(\|.*\n)*", lambda _: f"{written}\n", page, flags=re.MULTILINE)
    if times != 1:
        raise ValueError(f"page: expected one table with the header {header!r}, got {times}")
    return found


def write_table(path: Path, written: str) -> None:
    """Print a table, and put it into a page."""
    print(written)
    path.write_text(with_table(path.read_text(encoding="utf-8"), written), encoding="utf-8")


def draw_seeds(axes: Any, places: Sequence[float], curves: Sequence[Sequence[float]], color: str, label: str) -> None:
    """Draw a curve for each seed, thin, and their mean, bold."""
    for curve in curves:
        axes.plot(places, curve, color=color, alpha=0.25, linewidth=0.8)
    if curves:
        axes.plot(
            places, np.mean(curves, axis=0), color=color, label=f"{label}, {len(curves)} seed{'s' * (len(curves) > 1)}"
        )
