"""What the benchmarks share: times, memory, and the description of the machine."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]
STARTED = time.monotonic()
QUIET = 0.05  # processors that others may keep busy during a measurement that counts as undisturbed


def milliseconds(function: Callable[[], object], seconds: float) -> list[float]:
    """Times of repeated calls, after two to warm up."""
    return [wall for wall, _ in clocks(function, seconds)]


def clocks(function: Callable[[], object], seconds: float) -> list[tuple[float, float]]:
    """Milliseconds of repeated calls by the clock on the wall, and of processor time of all threads together."""
    times: list[tuple[float, float]] = []
    function()
    function()
    while sum(wall for wall, _ in times) < 1000 * seconds or len(times) < 5:
        wall, processor = time.perf_counter(), time.process_time()
        function()
        times.append((1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - processor)))
    return times


def extra_memory(function: Callable[[], object]) -> float | None:
    """Megabytes of resident memory that a call needs at its peak, beyond what is there before it; None if unknown."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not os.access(reset, os.W_OK):
        return None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # memory that was freed but kept would hide what the call needs

    def megabytes(name: str) -> float:
        (line,) = (line for line in status.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) / 1024

    reset.write_text("5")  # sets the peak to what is resident now
    before = megabytes("VmRSS")
    function()
    return megabytes("VmHWM") - before


def busy_seconds() -> float | None:
    """Processor time that all processes together have used so far; None if unknown."""
    path = Path("/proc/stat")
    if not path.exists():
        return None
    user, nice, system, _, _, interrupts, soft, *_ = (int(part) for part in path.read_text().split("\n")[0].split()[1:])
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


def others_busy(action: Callable[[], object]) -> tuple[Any, float | None]:
    """The result of an action, and how many processors other processes kept busy meanwhile."""
    start, own, busy = time.monotonic(), time.process_time(), busy_seconds()
    result = action()
    wall, own = time.monotonic() - start, time.process_time() - own
    return result, None if busy is None else max(0.0, busy_seconds() - busy - own) / wall


def undisturbed(function: Callable[[], object], seconds: float, give_up: float) -> Row:
    """Times of a function, taken when no other process is busy; after the time `give_up`, whatever others do.

    Returns:
        Median, best, median of processor time, number of repeats, and how many processors others kept busy: of the
        quietest attempt. Processor time says something even where others are busy, if there is one thread.
    """
    best: Row | None = None
    while True:
        while time.monotonic() < give_up and (others_busy(lambda: time.sleep(0.5))[1] or 0.0) > QUIET:
            pass
        times, others = others_busy(lambda: clocks(function, seconds))
        walls, processors = zip(*times, strict=True)
        row = {
            "median": statistics.median(walls),
            "best": min(walls),
            "processor_median": statistics.median(processors),
        }
        row |= {"repeats": len(times), "others_busy": others}
        if best is None or (others is not None and others < best["others_busy"]):
            best = row
        if others is None or best["others_busy"] <= QUIET or time.monotonic() >= give_up:
            return best


def measure(forward: Callable[[], torch.Tensor], leaves: Sequence[torch.Tensor], options: argparse.Namespace) -> Row:
    """Times of `forward` without and with the gradients of `leaves`, and what both take of memory."""
    weight = torch.randn_like(forward())

    def inference() -> None:
        with torch.no_grad():
            forward()

    def training() -> None:
        torch.autograd.grad(forward(), leaves, weight)

    result: Row = {}
    for name, function in (("forward", inference), ("forward_backward", training)):
        gc.collect()
        result[name] = undisturbed(function, options.seconds, STARTED + options.patience)
        result[name]["extra_megabytes"] = extra_memory(function)
        result[name]["load_average"] = os.getloadavg()[0]
    return result


def machine() -> Row:
    """What the numbers depend on."""
    return {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load_average_at_start": os.getloadavg(),
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of every benchmark."""
    parser.add_argument("--json", "--out", type=Path, dest="json", help="JSON file to write")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0, help="least time per measurement")
    parser.add_argument(
        "--patience", type=float, default=0.0, help="seconds to wait for others to leave the processors"
    )


def describe(row: Row) -> str:
    """The numbers of one row for the terminal."""
    cells = []
    for name in ("forward", "forward_backward"):
        found = row[name]
        disturbed = found["others_busy"] is None or found["others_busy"] > QUIET
        cells.append(f"{name} {found['median']:9.2f}{'?' if disturbed else ' '}({found['best']:.2f}) ms")
        cells.append(f"processor {found['processor_median']:9.2f} ms")
        if found["extra_megabytes"] is not None:
            cells.append(f"{found['extra_megabytes']:6.0f} MB")
    return "  ".join(cells)


def write(options: argparse.Namespace, about: Row, rows: list[Row]) -> None:
    """The JSON file, if one was asked for."""
    if options.json:
        chosen = {key: value for key, value in vars(options).items() if key != "json"}
        about = {**about, "load_average_at_end": os.getloadavg()}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**about, "options": chosen, "rows": rows}, indent=2) + "\n")


def write_table(page: Path, table: str) -> None:
    """Put a table in the place of the one on a page with the same first column.

    Raises:
        ValueError: if there is none, or more than one.
    """
    start = table[: table.index("|", 1) + 1]
    pattern = re.compile(rf"^{re.escape(start)}.*\n(\|.*\n)*", re.M)
    written, times = pattern.subn(lambda _: f"{table}\n", page.read_text(encoding="utf-8"))
    if times != 1:
        raise ValueError(f"{page}: expected one table that begins with {start!r}, got {times}")
    page.write_text(written, encoding="utf-8")
