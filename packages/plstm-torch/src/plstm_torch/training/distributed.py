"""One process or several: who computes which samples, and how sums come together."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn

from plstm_torch.optional import UserError


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank: number of this process.
        size: number of processes.
        device: on which this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def shard(self, indices: Sequence[int]) -> Sequence[int]:
        """Return this process's share of a global batch: a contiguous piece, sizes differing by one at most."""
        return indices[len(indices) * self.rank // self.size : len(indices) * (self.rank + 1) // self.size]

    def sum(self, values: Mapping[str, float]) -> dict[str, float]:
        """Add up each value over all processes, in float64."""
        if self.size == 1:
            return dict(values)
        total = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return dict(zip(values, total.tolist(), strict=True))

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model, its gradients averaged over the processes if there are several."""
        if self.size == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            distributed.barrier()


def environment_rank() -> int:
    """Return this process's number as torchrun set it, 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def choose_device(name: str) -> torch.device:
    """Turn a device's name into a device that exists here.

    Args:
        name: "auto", "cpu", "cuda", "cuda:1" and so on; with several processes "cuda" means one GPU each.

    Returns:
        The device.

    Raises:
        UserError: if there is no such device.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name!r}: expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda":
        index = local_rank if device.index is None else device.index
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            raise UserError(f"device={name!r}: torch sees {torch.cuda.device_count()} CUDA devices here")
        return torch.device("cuda", index)
    if device.type != "cpu":
        raise UserError(f"device={name!r}: expected auto, cpu, cuda or cuda:N")
    return device


@contextmanager
def open_world(device: str) -> Iterator[World]:
    """Join the processes that torchrun started, or stand alone without torchrun.

    Args:
        device: see `choose_device`.

    Yields:
        The world; the process group is left at the end.
    """
    chosen = choose_device(device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(0, 1, chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield World(distributed.get_rank(), size, chosen)
    finally:
        distributed.destroy_process_group()
