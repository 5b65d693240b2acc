"""The handwritten digits that scikit-learn ships: 1,797 real images of 8 x 8 pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from plstm_testing.datasets.errors import require
from plstm_testing.datasets.random_numbers import uniform

IMAGE_SIZE = 8
NUM_CLASSES = 10
_TEST_EVERY = 5


@dataclass(frozen=True)
class Digits:
    """The digits, split once and for all.

    Attributes:
        train_images: [N, 8, 8, 1] float32 between 0 and 1.
        train_labels: [N] int64.
        test_images: [M, 8, 8, 1] float32 between 0 and 1.
        test_labels: [M] int64.
    """

    train_images: Float[ndarray, "N 8 8 1"]
    train_labels: Int[ndarray, " N"]
    test_images: Float[ndarray, "M 8 8 1"]
    test_labels: Int[ndarray, " M"]


def load_digits() -> Digits:
    """Load the digits; every fifth image of each digit is a test image.

    The images stand in the order in which they were collected, so the split puts every writer on both sides.

    Returns:
        The split images and labels: 1,442 for training, 355 for the test.

    Raises:
        DatasetError: if scikit-learn is not installed.

    Examples:
        >>> from plstm_testing.datasets import load_digits
        >>> digits = load_digits()
        >>> digits.train_images.shape[1:], len(digits.test_labels)
        ((8, 8, 1), 355)
    """
    source = require("sklearn.datasets", "scikit-learn").load_digits()
    images = (np.asarray(source.images) / 16.0).astype(np.float32)[..., None]
    labels = np.asarray(source.target, np.int64)
    one_hot = np.eye(NUM_CLASSES, dtype=np.int64)[labels]
    number_in_class = (one_hot.cumsum(0) * one_hot).sum(1)
    is_test = number_in_class % _TEST_EVERY == 0
    return Digits(images[~is_test], labels[~is_test], images[is_test], labels[is_test])


def distort(
    images: Float[ndarray, "B height width 1"],
    indices: Sequence[int],
    *,
    key: tuple[int, ...],
    shift: float = 1.0,
    angle: float = 10.0,
    stretch: float = 0.1,
) -> Float[ndarray, "B height width 1"]:
    """Shift, turn and scale each image a little, so that 1,442 images do not run out.

    What happens to an image depends on `key` and its index only.

    Args:
        images: [B, height, width, 1].
        indices: index of each image in the training set.
        key: integers that name the stream, for instance (seed, epoch).
        shift: largest shift along each axis, in pixels.
        angle: largest rotation in degrees.
        stretch: largest relative change of scale.

    Returns:
        The distorted images, same shape.
    """
    # in float64, so that rounding cannot depend on which other images are in the batch
    draws = uniform(key, np.asarray(indices), 4) * 2 - 1
    turn = draws[:, 0] * math.radians(angle)
    scale = 1 + draws[:, 1] * stretch
    cosine, sine = (part[:, None, None] for part in (scale * np.cos(turn), scale * np.sin(turn)))
    height, width = images.shape[1:3]
    move_x, move_y = draws[:, 2, None, None] * 2 * shift / width, draws[:, 3, None, None] * 2 * shift / height
    y, x = _centres(height)[:, None], _centres(width)[None, :]
    source_x = ((x * cosine - y * sine + move_x + 1) * width - 1) / 2
    source_y = ((x * sine + y * cosine + move_y + 1) * height - 1) / 2
    moved = _sample(images[..., 0].astype(np.float64), source_x, source_y).astype(images.dtype)
    # channels first in memory, as convolutions have them: the order decides the last bits of what a model computes
    return moved.reshape(len(images), 1, height, width).transpose(0, 2, 3, 1)


def _centres(size: int) -> Float[ndarray, " size"]:
    """Middles of the pixels along an axis that runs from -1 to 1."""
    return np.linspace(-1, 1, size) * (size - 1) / size


def _sample(
    images: Float[ndarray, "B height width"], x: Float[ndarray, "B height width"], y: Float[ndarray, "B height width"]
) -> Float[ndarray, "B height width"]:
    """Read images between their pixels (bilinear); outside of them everything is zero."""
    height, width = images.shape[1:]
    # a frame of zeros takes the place of a test for every neighbour
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    left, top = np.floor(x), np.floor(y)
    right_share, bottom_share = x - left, y - top
    image = np.arange(len(images))[:, None, None]

    def pixel(row: ndarray, column: ndarray) -> ndarray:
        inside_row = np.clip(row + 1, 0, height + 1).astype(np.int64)
        return framed[image, inside_row, np.clip(column + 1, 0, width + 1).astype(np.int64)]

    above = pixel(top, left) * (1 - right_share) + pixel(top, left + 1) * right_share
    below = pixel(top + 1, left) * (1 - right_share) + pixel(top + 1, left + 1) * right_share
    return above * (1 - bottom_share) + below * bottom_share


def training_batch(
    digits: Digits, indices: Sequence[int], *, key: tuple[int, ...] | None
) -> tuple[Float[ndarray, "B 8 8 1"], Int[ndarray, " B"]]:
    """Return training images and labels, distorted unless `key` is None.

    Args:
        digits: the split data.
        indices: which training images.
        key: stream of the distortions, for instance (seed, epoch); None leaves the images as they are.

    Returns:
        Images [B, 8, 8, 1] and labels [B].
    """
    chosen = np.asarray(indices, np.int64)
    images, labels = digits.train_images[chosen], digits.train_labels[chosen]
    return (images if key is None else distort(images, indices, key=key)), labels
