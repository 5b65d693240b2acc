"""Tiles of a grid on ranks: states leave a tile to the right and to the bottom, and enter the next; README.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh

States = tuple[Tensor, Tensor]
# Runs some rows of the batch through this tile, from what enters at its left and top, as the walk sees them.
Operation = Callable[[slice, States], tuple[Tensor, States]]


@dataclass(frozen=True)
class Walk:
    """One orientation of the recurrence through all tiles.

    Attributes:
        backwards: whether it goes from the last tile to the first along X, and along Y.
        operation: what it does in this tile.
        borders: what enters the grid (left, top), as far as this tile lies at its border; zeros elsewhere.
    """

    backwards: tuple[bool, bool]
    operation: Operation
    borders: States


@dataclass(frozen=True)
class Tiles:
    """The ranks of a mesh as tiles of a grid: its first dimension cuts X, its second one, if there is one, Y.

    Attributes:
        mesh: of one or two dimensions.
    """

    mesh: DeviceMesh

    @property
    def shape(self) -> tuple[int, int]:
        """Tiles along X and Y."""
        return self.mesh.size(0), (self.mesh.size(1) if self.mesh.ndim == 2 else 1)

    @property
    def place(self) -> tuple[int, int]:
        """Where this rank's tile lies among them."""
        return self.mesh.get_local_rank(0), (self.mesh.get_local_rank(1) if self.mesh.ndim == 2 else 0)

    def stage(self, backwards: tuple[bool, bool]) -> int:
        """How many tiles a walk passes before this one, on the longest way."""
        steps = zip(self.place, self.shape, backwards, strict=True)
        return sum(size - 1 - place if back else place for place, size, back in steps)

    def neighbour(self, axis: int, backwards: tuple[bool, bool], *, behind: bool) -> Link | None:
        """The rank beside this one on a walk.

        Args:
            axis: 0 along X, 1 along Y.
            backwards: which way the walk goes.
            behind: whether the rank is where it comes from, or where it goes.

        Returns:
            The rank, None beyond the grid.
        """
        place = self.place[axis] + (1 if backwards[axis] == behind else -1)
        if not 0 <= place < self.shape[axis]:
            return None
        group = self.mesh.get_group(axis)
        return Link(group, distributed.get_global_rank(group, place))


@dataclass(frozen=True)
class Link:
    """Another rank, and the group in which it is spoken to."""

    group: distributed.ProcessGroup
    rank: int


def run_tiles(
    walks: Sequence[Walk], tiles: Tiles, rows: int, parts: int, anchor: Tensor
) -> list[tuple[Tensor, States]]:
    """Run all walks through this rank's tile, at each step of time those that have reached it.

    Rows of the batch know nothing of each other: cut into parts, they follow one another through the tiles, and fewer
    ranks wait.

    Args:
        walks: orientations, in the same order on all ranks.
        tiles: where the ranks lie.
        rows: size of the batch.
        parts: number of parts that the batch is cut into.
        anchor: a scalar zero in the dtype of the states that depends on all arguments, so that every rank has every
            exchange in its graph.

    Returns:
        For each walk its output [rows, ...] and what leaves the tile.
    """
    slices = [slice(rows * part // parts, rows * (part + 1) // parts) for part in range(parts)]
    done: dict[tuple[int, int], tuple[Tensor, States]] = {}
    arrived: dict[tuple[int, int, int], Tensor] = {}
    last = sum(tiles.shape) - 2 + parts - 1

    def due(time: int) -> list[tuple[int, int]]:
        stages = [tiles.stage(walk.backwards) for walk in walks]
        return [(walk, time - stage) for walk, stage in enumerate(stages) if 0 <= time - stage < parts]

    for time in range(last + 1):
        for walk, part in due(time):
            own = [border[slices[part]] for border in walks[walk].borders]
            left, top = (arrived.pop((walk, part, axis), own[axis]) for axis in range(2))
            done[walk, part] = walks[walk].operation(slices[part], (left, top))
        sends, receives, keys = [], [], []
        for axis in range(2):
            for walk, part in due(time):
                link = tiles.neighbour(axis, walks[walk].backwards, behind=False)
                if link is not None:
                    sends.append((link, done[walk, part][1][axis]))
            for walk, part in due(time + 1):
                link = tiles.neighbour(axis, walks[walk].backwards, behind=True)
                if link is not None:
                    receives.append((link, walks[walk].borders[axis][slices[part]].shape))
                    keys.append((walk, part, axis))
        if sends or receives:
            links = tuple(link for link, _ in sends)
            anchor, *got = _Exchange.apply(links, tuple(receives), anchor, *(tensor for _, tensor in sends))
            arrived.update(zip(keys, got, strict=True))
    return [_joined([done[walk, part] for part in range(parts)], anchor) for walk in range(len(walks))]


def _joined(results: list[tuple[Tensor, States]], anchor: Tensor) -> tuple[Tensor, States]:
    """The parts of the batch together; the result depends on all exchanges, so that each has a backward pass."""
    if len(results) == 1:
        output, (right, bottom) = results[0]
    else:
        output = torch.cat([result for result, _ in results])
        right, bottom = (torch.cat([states[axis] for _, states in results]) for axis in range(2))
    return output + anchor.to(output.dtype), (right, bottom)


class _Exchange(torch.autograd.Function):
    """Send and receive at once; the gradients are an exchange the other way, to any order.

    The anchor, which is zero, ties the exchanges of a rank together: each is part of what comes after it, forward,
    backward and in further derivatives, whether or not anything is received.
    """

    @staticmethod
    def forward(
        ctx: Any,
        targets: tuple[Link, ...],
        origins: tuple[tuple[Link, torch.Size], ...],
        anchor: Tensor,
        *sent: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.links = tuple(link for link, _ in origins)
        ctx.returns = tuple((link, tensor.shape) for link, tensor in zip(targets, sent, strict=True))
        anchor = anchor.clone()
        ctx.save_for_backward(anchor)
        return (anchor, *_transfer(targets, sent, origins, anchor))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        d_anchor, *d_received = grads
        (anchor,) = ctx.saved_tensors
        return None, None, *_Exchange.apply(ctx.links, ctx.returns, d_anchor + 0.0 * anchor, *d_received)


def _transfer(
    targets: tuple[Link, ...],
    sent: tuple[Tensor, ...],
    origins: tuple[tuple[Link, torch.Size], ...],
    like: Tensor,
) -> list[Tensor]:
    """Send tensors and receive others; what goes between two ranks is in the same order on both."""
    received = [like.new_empty(shape) for _, shape in origins]
    operations = [
        (link.group, distributed.P2POp(distributed.isend, tensor.contiguous(), link.rank, link.group))
        for link, tensor in zip(targets, sent, strict=True)
        if tensor.numel()
    ]
    operations += [
        (link.group, distributed.P2POp(distributed.irecv, tensor, link.rank, link.group))
        for (link, _), tensor in zip(origins, received, strict=True)
        if tensor.numel()
    ]
    groups = list(dict.fromkeys(group for group, _ in operations))
    works = []
    for group in groups:
        works += distributed.batch_isend_irecv([operation for own, operation in operations if own is group])
    for work in works:
        work.wait()
    return received
