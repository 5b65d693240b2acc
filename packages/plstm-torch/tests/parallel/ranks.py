"""One rank of several: runs all cases of this folder and writes what it found. Started by test_parallel.py."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from plstm_testing.tolerances import rms_error

# A rank that fails leaves the others waiting: not for long.
PATIENCE = timedelta(seconds=60)
Finding = tuple[str, float]


def errors(names: str, actual: Sequence[Tensor], expected: Sequence[Tensor]) -> Iterator[Finding]:
    """The errors of tensors, by their names; numbers that are not finite have to be so in the same places."""
    for name, one, other in zip(names.split(), actual, expected, strict=True):
        one, other = one.detach(), other.detach()
        if one.shape != other.shape or not torch.equal(one.isfinite(), other.isfinite()):
            yield f"{name}: {tuple(one.shape)}, {int(one.isfinite().sum())} finite", float("inf")
        finite = other.isfinite()
        yield name, rms_error(one[finite].double().numpy(), other[finite].double().numpy())


@dataclass(frozen=True)
class World:
    """This rank among the others.

    Attributes:
        rank: of this process.
        size: number of processes.
    """

    rank: int
    size: int

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up over the ranks."""
        total = tensor.detach().clone(memory_format=torch.contiguous_format)  # the sum is over what lies in memory
        distributed.all_reduce(total)
        return total

    def message(self, call: Callable[[], Any]) -> str:
        """The message that a call raises, with the type of the error."""
        try:
            call()
        except (TypeError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return "nothing raised"


def main(rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(str(folder / "store"), size)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)
    sys.path.insert(0, str(Path(__file__).parent))
    import cases

    world = World(rank, size)
    found = {}
    for name, case in cases.CASES.items():
        if len(sys.argv) > 4 and not any(w in name for w in sys.argv[4:]):
            continue
        torch.manual_seed(0)
        found[name] = list(case(world))
        (folder / f"{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
