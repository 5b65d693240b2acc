"""The page and the picture of the state-tracking study, from its results alone."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from words import TASKS

DOCS = Path(__file__).parents[1] / "docs"
PAGE, PICTURE = DOCS / "state_tracking.md", DOCS / "state_tracking.png"
BEGIN, END = "<!-- written by studies/state_tracking.py -->\n", "<!-- up to here -->\n"
COLORS = ("#8a939e", "#2f6db5", "#c8553d", "#3f8f5f", "#8e5bb0")
INK, GRID = "#22272e", "#d8dde3"

Results = dict[tuple[str, str], list[dict[str, Any]]]
Plan = Mapping[str, Mapping[str, str]]  # task, transition, title


def load(folder: Path) -> Results:
    """The results by task and kind of transition, in the order of the seeds.

    Args:
        folder: holds one file for each run that is through.

    Returns:
        A list of results for each pair that there are any of.
    """
    found: Results = {}
    for path in folder.glob("*.json"):
        result = json.loads(path.read_text(encoding="utf-8"))
        found.setdefault((result["task"], result["transition"]), []).append(result)
    return {pair: sorted(runs, key=lambda one: one["seed"]) for pair, runs in found.items()}


def table(results: Results, plan: Plan, seeds: Sequence[int]) -> str:
    """Accuracies of the whole words as a table.

    Args:
        results: as they are loaded.
        plan: what there should be.
        seeds: those that the study asks for.

    Returns:
        Lines of Markdown: lowest to highest accuracy over the seeds, and which seeds were not run.
    """
    lengths = sorted({int(length) for runs in results.values() for one in runs for length in one["test"]})
    lines = [
        "| task | transition | " + " | ".join(map(str, lengths)) + " | seeds | parameters | training |",
        "|---|---|" + "---|" * (len(lengths) + 3),
    ]
    for task, titles in plan.items():
        for kind, title in titles.items():
            runs = results.get((task, kind), [])
            cells = [spread([100 * one["test"][str(length)]["last"] for one in runs]) for length in lengths]
            lines.append("| " + " | ".join([TASKS[task].title, title, *cells, *costs(runs, seeds)]) + " |")
    return "\n".join(lines) + "\n"


def spread(values: Sequence[float]) -> str:
    """Median and range, in percent."""
    if not values:
        return "-"
    low, high = min(values), max(values)
    middle = f"{statistics.median(values):.1f}"
    return middle if len(values) == 1 or f"{low:.1f}" == f"{high:.1f}" else f"{middle} ({low:.1f} to {high:.1f})"


def costs(runs: Sequence[Mapping[str, Any]], seeds: Sequence[int]) -> list[str]:
    """Seeds, parameters and time of training of some runs."""
    done = [one["seed"] for one in runs]
    missing = [seed for seed in seeds if seed not in done]
    ran = ", ".join(map(str, done)) + (f" ({', '.join(map(str, missing))} not run)" if missing else "")
    if not runs:
        return ["not run", "-", "-"]
    times = [one["training"]["processor_seconds"] for one in runs]
    return [ran, f"{runs[0]['parameters']:,}", f"{statistics.median(times):.0f} s"]


def draw(results: Results, plan: Plan) -> Figure:
    """Accuracy against length: a panel for each task, a line for each transition, a dot for each seed.

    Args:
        results: as they are loaded.
        plan: what there should be.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(11, 4.2), dpi=120, layout="constrained")
    panels = figure.subplots(1, len(plan), sharey=True)
    handles: dict[str, Any] = {}
    for axes, (task, titles) in zip(panels, plan.items(), strict=True):
        about = TASKS[task]
        for color, (kind, title) in zip(COLORS, titles.items(), strict=False):
            handles[title] = draw_runs(axes, results.get((task, kind), []), color)
        axes.axvline(32, color=GRID, linewidth=6, zorder=0)
        handles["chance"] = axes.axhline(1 / len(about.elements), color=INK, linewidth=0.8, linestyle=":")
        finish(axes, about.title)
    panels[0].set_ylabel("whole words answered right")
    chance = handles.pop("chance")
    handles["chance"] = chance  # last, whatever the first panel has
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def draw_runs(axes: Any, runs: Sequence[Mapping[str, Any]], color: str) -> Any:
    """One line through the medians of the seeds, and their dots; returns the line."""
    lengths = [int(length) for length in runs[0]["test"]] if runs else []
    scores = [[one["test"][str(length)]["last"] for one in runs] for length in lengths]
    for length, some in zip(lengths, scores, strict=True):
        axes.plot([length] * len(some), some, color=color, marker="o", ms=3.5, linestyle="none", alpha=0.7)
    return axes.plot(lengths, [statistics.median(some) for some in scores], color=color, linewidth=1.6)[0]


def finish(axes: Any, title: str) -> None:
    """Titles, ticks and grid."""
    axes.set_title(title, color=INK, fontsize=11, loc="left")
    axes.set_xscale("log", base=2)
    axes.set_xticks([32, 64, 128, 256], ["32", "64", "128", "256"])
    axes.set_xlabel("length; trained at the shaded one and below")
    axes.set_xlim(28, 290)
    axes.set_ylim(-0.03, 1.03)
    axes.grid(color=GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def with_table(page: str, written: str) -> str:
    """The page with another table between its marks.

    Raises:
        ValueError: if the marks are missing.
    """
    parts = re.split(f"({re.escape(BEGIN)}|{re.escape(END)})", page)
    if parts[1::2] != [BEGIN, END]:
        raise ValueError(f"page: expected the lines {BEGIN!r} and {END!r} once each, got {parts[1::2]}")
    return "".join([parts[0], BEGIN, "\n", written, "\n", END, parts[-1]])


def write(folder: Path, plan: Plan, seeds: Sequence[int]) -> None:
    """Write the table into the page, and the picture beside it.

    Args:
        folder: of the results.
        plan: what there should be.
        seeds: those that the study asks for.
    """
    results = load(folder)
    page = with_table(PAGE.read_text(encoding="utf-8"), table(results, plan, seeds))
    PAGE.write_text(page, encoding="utf-8")
    draw(results, plan).savefig(PICTURE, metadata={"Software": None})
