"""Where the pieces of a sequence lie, and which packed sequences each holds: integers only."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate


def even_lengths(length: int, count: int) -> tuple[int, ...]:
    """How `split_sequence` cuts `length` steps into `count` pieces, whose sizes differ by one at most."""
    return tuple(length * (rank + 1) // count - length * rank // count for rank in range(count))


@dataclass(frozen=True)
class Pieces:
    """A line of steps that is cut into pieces, one for each rank, and sequences packed along it.

    A position is "open" where a sequence runs across it: what stands before is needed behind. Between two pieces that
    meet at the border of two sequences nothing has to be handed on.

    Attributes:
        rank: of this process.
        lengths: steps of each piece.
        borders: of the sequences [S + 1], from 0 to the sum of the lengths.
    """

    rank: int
    lengths: tuple[int, ...]
    borders: tuple[int, ...]

    @property
    def ends(self) -> tuple[int, ...]:
        """The first step and the ends of all pieces [R + 1]."""
        return (0, *accumulate(self.lengths))

    @property
    def start(self) -> int:
        """The first step of this rank's piece."""
        return self.ends[self.rank]

    @property
    def stop(self) -> int:
        """The step after this rank's piece."""
        return self.ends[self.rank + 1]

    @property
    def count(self) -> int:
        """How many sequences there are."""
        return len(self.borders) - 1

    def is_open(self, position: int) -> bool:
        """Whether a sequence runs across a position."""
        return 0 < position < self.borders[-1] and self.borders[self.sequence_at(position)] < position

    @property
    def any_open(self) -> bool:
        """Whether anything has to be handed on between pieces: the same answer on all ranks."""
        return any(self.is_open(position) for position in self.ends[1:-1])

    @property
    def continues(self) -> bool:
        """Whether the first step of this piece continues a sequence."""
        return self.start < self.stop and self.is_open(self.start)

    def sequence_at(self, position: int) -> int:
        """The sequence that a step belongs to."""
        return bisect_right(self.borders, position) - 1

    @property
    def held(self) -> range:
        """The sequences from that of this piece's first step to that of its last; none if it has no steps."""
        if self.start == self.stop:
            return range(0)
        return range(self.sequence_at(self.start), self.sequence_at(self.stop - 1) + 1)

    @property
    def own_borders(self) -> list[int]:
        """The borders of the sequences that this piece holds, within the piece."""
        held = self.held
        inside = (min(max(border, self.start), self.stop) for border in self.borders[held.start : held.stop + 1])
        return [border - self.start for border in inside]

    @property
    def tail(self) -> int:
        """The step of this piece from which on all belongs to the sequence that is open at the piece's end."""
        if not self.is_open(self.stop):
            return self.stop - self.start
        return max(self.borders[self.sequence_at(self.stop)], self.start) - self.start

    def begins(self, piece: int) -> bool:
        """Whether the sequence that is open at the end of a piece begins in it."""
        start, stop = self.ends[piece], self.ends[piece + 1]
        return self.is_open(stop) and self.borders[self.sequence_at(stop)] >= start

    @property
    def finished(self) -> list[int]:
        """The sequences whose last step lies in this piece; the first rank has those without any."""
        empty_too = self.rank == 0
        return [
            sequence
            for sequence, (start, stop) in enumerate(zip(self.borders[:-1], self.borders[1:], strict=True))
            if (self.start < stop <= self.stop if start < stop else empty_too)
        ]
