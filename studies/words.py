"""Word problems of groups: sequences of elements, and the product of each prefix."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

Permutation = tuple[int, ...]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """A word problem.

    Attributes:
        title: for tables and pictures.
        degree: the group is that of all permutations of so many points.
        moved: tokens are the elements that move at most so many points.
    """

    title: str
    degree: int
    moved: int

    @property
    def elements(self) -> list[Permutation]:
        """All elements of the group; the identity is the first."""
        return list(permutations(range(self.degree)))

    @property
    def tokens(self) -> Integers:
        """Which elements sequences are made of."""
        moved = [sum(point != image for point, image in enumerate(element)) for element in self.elements]
        return np.flatnonzero(np.array(moved) <= self.moved)

    @property
    def table(self) -> Integers:
        """Products [N, N]: entry (a, b) is the element that does b first, then a."""
        elements = self.elements
        place = {element: index for index, element in enumerate(elements)}
        return np.array([[place[tuple(a[image] for image in b)] for b in elements] for a in elements])

    @property
    def start(self) -> int:
        """The token in front of every sequence, after all elements; the product there is the identity."""
        return len(self.elements)


TASKS = {
    "parity": Task("parity", degree=2, moved=2),
    "s3": Task("S3", degree=3, moved=3),
    "s5": Task("S5, by swaps", degree=5, moved=2),
}


class Words:
    """Draws words of a task.

    Args:
        task: the word problem.
        seed: numbers that the draws depend on.
    """

    def __init__(self, task: Task, *seed: int) -> None:
        self.task, self.random = task, np.random.default_rng(seed)
        self.table, self.tokens = task.table, task.tokens

    def draw(self, count: int, length: int) -> tuple[Integers, Integers]:
        """Words and what is asked for.

        Args:
            count: number of words.
            length: elements of each.

        Returns:
            Inputs [count, 1 + length], the start token and then uniformly drawn elements, and the product of
            each prefix, of the same shape.
        """
        elements = self.random.choice(self.tokens, (count, length))
        products = np.zeros((count, 1 + length), dtype=np.int64)
        for step in range(length):
            products[:, step + 1] = self.table[products[:, step], elements[:, step]]
        start = np.full((count, 1), self.task.start)
        return np.concatenate([start, elements], axis=1), products
