"""Labelled data that are not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy import ndarray


@dataclass(frozen=True)
class Labelled:
    """Images in memory.

    Attributes:
        images: [N, height, width, C].
        labels: [N] int64.
    """

    images: ndarray
    labels: Int[ndarray, " N"]

    def batch(self, indices: Sequence[int] | ndarray, scale: float = 1.0) -> tuple[ndarray, Int[ndarray, " B"]]:
        """Return some of the images as float32, and their labels.

        Args:
            indices: which.
            scale: factor of the pixels.

        Returns:
            Images [B, height, width, C] and labels [B].
        """
        chosen = np.asarray(indices, np.int64)
        return self.images[chosen].astype(np.float32) * np.float32(scale), self.labels[chosen]


def hold_out(
    labels: Int[ndarray, " N"], share: float, *, key: int | None = None
) -> tuple[Int[ndarray, " T"], Int[ndarray, " H"]]:
    """Split every class by a drawing of its own.

    Args:
        labels: class of each sample.
        share: of each class that is held out, rounded, but neither none nor all of a class; 0 holds out nothing. A
            class of one sample stays.
        key: of the drawing; another key splits otherwise.

    Returns:
        Indices of the samples that stay and of those that are held out, both in order.
    """
    held: list[int] = []
    for label in np.unique(labels).tolist() if share else []:
        own = np.flatnonzero(labels == label)
        count = min(len(own) - 1, max(1, round(share * len(own))))
        order = np.random.default_rng(label if key is None else (label, key)).permutation(len(own))
        held += own[order[:count]].tolist()
    stays = np.ones(len(labels), bool)
    stays[held] = False
    return np.flatnonzero(stays), np.flatnonzero(~stays)
