"""Hold the packages against drawn inputs for some time: ``python fuzz --minutes 20``.

Each example is a target and a seed, and nothing else: what fails is repeated by the line that it prints.
"""

import argparse
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np
from files import TARGETS as FILES
from operations import operation_targets

Target = Callable[[np.random.Generator], None]


def main() -> int:
    """Run the targets in turn until the time is over; the exit code says whether any example failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--target", action="append", help="only these targets")
    parser.add_argument("--seed", type=int, help="one example instead of many")
    parser.add_argument("--first", type=int, default=None, help="where the seeds begin; drawn if it is left out")
    options = parser.parse_args()
    targets: dict[str, Target] = {**operation_targets(), **FILES}
    chosen = options.target or list(targets)
    if unknown := set(chosen) - set(targets):
        parser.error(f"--target: expected some of {sorted(targets)}, got {sorted(unknown)}")
    warnings.simplefilter("ignore")
    if options.seed is not None:
        return sum(not _holds(name, targets[name], options.seed) for name in chosen)
    first = int(time.time()) if options.first is None else options.first
    counts, failed, end = Counter[str](), Counter[str](), time.monotonic() + 60 * options.minutes
    seed = first
    while time.monotonic() < end:
        for name in chosen:
            # cheap targets get as many examples as expensive ones get seconds
            started = time.monotonic()
            while time.monotonic() < min(started + 5.0, end):
                counts[name] += 1
                failed[name] += not _holds(name, targets[name], seed)
                seed += 1
    for name in chosen:
        print(f"{name}: {counts[name]} examples, {failed[name]} failed")
    return min(1, failed.total())


def _holds(name: str, target: Target, seed: int) -> bool:
    try:
        target(np.random.default_rng(seed))
    except Exception:  # whatever a target did not expect is a finding
        traceback.print_exc(limit=-6)
        print(f"replay: python fuzz --target {name} --seed {seed}", flush=True)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
