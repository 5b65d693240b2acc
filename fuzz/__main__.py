"""Hold the packages against drawn inputs for some time: ``python fuzz --minutes 20``.

Each example is a target and a seed, and nothing else: what fails is repeated by the line that it prints.
"""

import argparse
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from files import TARGETS as FILES
from neighbours import neighbour_targets
from operations import operation_targets

LONGEST = 600  # seconds that an example may take, on a busy machine and with all imports
Target = Callable[[np.random.Generator], None]


class TooLongError(Exception):
    """An example did not end in time; of no class that a target or a package expects."""


def main() -> int:
    """Run the targets in turn until the time is over; the exit code says whether any example failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--target", action="append", help="only these targets")
    parser.add_argument("--seed", type=int, help="one example instead of many")
    parser.add_argument("--first", type=int, default=None, help="where the seeds begin; drawn if it is left out")
    options = parser.parse_args()
    targets: dict[str, Target] = {**operation_targets(), **neighbour_targets(), **FILES}
    if find_spec("plstm_torch") is not None:  # which has a command line
        from runs import TARGETS as RUNS

        targets |= RUNS
    chosen = options.target or list(targets)
    if unknown := set(chosen) - set(targets):
        parser.error(f"--target: expected some of {sorted(targets)}, got {sorted(unknown)}")
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _too_long)
    if options.seed is not None:
        return sum(not _holds(name, targets[name], options.seed) for name in chosen)
    first = int(time.time()) if options.first is None else options.first
    counts, failed, end = Counter[str](), Counter[str](), time.monotonic() + 60 * options.minutes
    seed = first
    while time.monotonic() < end:
        for name in chosen:
            stop = min(time.monotonic() + _seconds(name), end)
            while time.monotonic() < stop:
                counts[name] += 1
                failed[name] += not _holds(name, targets[name], seed)
                seed += 1
    for name in chosen:
        print(f"{name}: {counts[name]} examples, {failed[name]} failed")
    return min(1, failed.total())


def _seconds(name: str) -> float:
    """Of a turn: what compiles or trains needs many for one example, and the others get many examples all the same."""
    return 25.0 if name == "runs" else 8.0 if name.startswith("jax") else 3.0


def _holds(name: str, target: Target, seed: int) -> bool:
    signal.alarm(LONGEST)  # what hangs is a finding, too
    try:
        target(np.random.default_rng(seed))
    except Exception:  # whatever a target did not expect is a finding
        traceback.print_exc(limit=-6)
        print(f"replay: python fuzz --target {name} --seed {seed}", flush=True)
        return False
    finally:
        signal.alarm(0)
    return True


def _too_long(number: int, frame: object) -> None:
    raise TooLongError(f"expected an end within {LONGEST} seconds")


if __name__ == "__main__":
    sys.exit(main())
