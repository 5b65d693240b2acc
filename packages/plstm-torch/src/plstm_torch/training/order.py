"""The order of the samples, as a function of (seed, epoch, step): nothing of it needs to be saved."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from plstm_testing.datasets.random_numbers import derive_seed
from plstm_torch.training.distributed import Share

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


class EpochBatches(Dataset[tuple[list[tuple[Batch, int]], int]]):
    """The batches of one epoch as this process sees them.

    Item k is (pieces, total): this process's share of global batch k in pieces, each with how many of its samples
    count, and the size of the global batch. Every process has the same number of pieces, since all have to take part
    whenever parameters or gradients are exchanged: one that has nothing left gets a sample that does not count.
    """

    def __init__(
        self, make_batch: MakeBatch, order: list[int], epoch: int, batch_size: int, share: Share, pieces: int = 1
    ) -> None:
        """Store the order; see `epoch_order`."""
        self.make_batch, self.order, self.epoch = make_batch, order, epoch
        self.batch_size, self.share, self.pieces = batch_size, share, pieces

    def __len__(self) -> int:
        """Return the number of global batches; the last may be smaller."""
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, position: int) -> tuple[list[tuple[Batch, int]], int]:
        """Return this process's share of a global batch."""
        everyone = self.order[position * self.batch_size : (position + 1) * self.batch_size]
        own, largest = self.share.of(everyone), -(-len(everyone) // self.share.size)
        number = min(self.pieces, largest)
        pieces = [Share(piece, number).of(own) for piece in range(number)]
        return [(self.make_batch(self.epoch, piece or everyone[:1]), len(piece)) for piece in pieces], len(everyone)


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
