"""One rank of several, started by torchrun: runs all cases of this folder and writes what it found."""

import gc
import json
import sys
import warnings
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
        except (TypeError, ValueError, RuntimeError) as error:
            return f"{type(error).__name__}: {error}"
        return "nothing raised"


def main(folder: Path) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", timeout=PATIENCE)
    import cases

    world = World(distributed.get_rank(), distributed.get_world_size())
    found = {}
    for name, case in cases.CASES.items():
        torch.manual_seed(0)
        found[name] = list(case(world))
        (folder / f"{world.rank}.json").write_text(json.dumps(found))
    gc.collect()  # a process that ends while a sharded model still holds its group would wait for ever
    distributed.destroy_process_group()


if __name__ == "__main__":
    sys.modules["ranks"] = sys.modules["__main__"]
    main(Path(sys.argv[1]))
