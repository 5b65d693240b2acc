"""The order of the samples, as a function of (seed, epoch, step): nothing of it needs to be saved."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from plstm_testing.datasets.random_numbers import derive_seed
from plstm_torch.training.distributed import World

# inputs, anything with `.to(device)`, and targets
Batch = tuple[Any, Tensor]
MakeBatch = Callable[[int, Sequence[int]], Batch]


def epoch_order(num_samples: int, seed: int, epoch: int) -> list[int]:
    """Return the samples of an epoch in shuffled order.

    Args:
        num_samples: how many there are.
        seed: of the run.
        epoch: which epoch.

    Returns:
        A permutation of range(num_samples).
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, epoch))
    return torch.randperm(num_samples, generator=generator).tolist()


class EpochBatches(Dataset[tuple[Batch, int, int]]):
    """The batches of one epoch as this process sees them.

    Item k is (batch, own, total): this process's share of global batch k, how many of its samples count, and the size
    of the global batch. A process whose share is empty gets one sample that does not count, since every process has to
    take part in the exchange of gradients.
    """

    def __init__(self, make_batch: MakeBatch, order: list[int], epoch: int, batch_size: int, world: World) -> None:
        """Store the order; see `epoch_order`."""
        self.make_batch, self.order, self.epoch = make_batch, order, epoch
        self.batch_size, self.world = batch_size, world

    def __len__(self) -> int:
        """Return the number of global batches; the last may be smaller."""
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, position: int) -> tuple[Batch, int, int]:
        """Return this process's share of a global batch."""
        everyone = self.order[position * self.batch_size : (position + 1) * self.batch_size]
        own = self.world.shard(everyone)
        return self.make_batch(self.epoch, own or everyone[:1]), len(own), len(everyone)


def load(batches: EpochBatches, first: int, last: int, workers: int) -> DataLoader:
    """Return an iterable over batches first ... last - 1.

    Args:
        batches: of one epoch.
        first: where to start, more than 0 in the middle of a resumed epoch.
        last: where to stop.
        workers: processes that prepare batches.

    Returns:
        The loader; what it yields does not depend on `workers`.
    """
    return DataLoader(batches, batch_size=None, sampler=range(first, last), num_workers=workers)
