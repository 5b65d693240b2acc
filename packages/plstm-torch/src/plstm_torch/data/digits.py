"""The handwritten digits that scikit-learn ships: 1,797 real images of 8 x 8 pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from plstm_torch.data.random_numbers import uniform
from plstm_torch.optional import require

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

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load_digits() -> Digits:
    """Load the digits; every fifth image of each digit is a test image.

    The images stand in the order in which they were collected, so the split puts every writer on both sides.

    Returns:
        The split images and labels: 1,442 for training, 355 for the test.

    Raises:
        UserError: if scikit-learn is not installed.
    """
    source = require("sklearn.datasets", "scikit-learn").load_digits()
    images = torch.tensor(np.asarray(source.images) / 16.0, dtype=torch.float32)[..., None]
    labels = torch.tensor(np.asarray(source.target), dtype=torch.int64)
    one_hot = functional.one_hot(labels, NUM_CLASSES)
    number_in_class = (one_hot.cumsum(0) * one_hot).sum(1)
    is_test = number_in_class % _TEST_EVERY == 0
    return Digits(images[~is_test], labels[~is_test], images[is_test], labels[is_test])


def distort(
    images: Float[Tensor, "B height width 1"],
    indices: Sequence[int],
    *,
    key: tuple[int, ...],
    shift: float = 1.0,
    angle: float = 10.0,
    stretch: float = 0.1,
) -> Float[Tensor, "B height width 1"]:
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
    wide = images.permute(0, 3, 1, 2).to(torch.float64)
    draws = torch.from_numpy(uniform(key, np.asarray(indices), 4)) * 2 - 1
    turn = draws[:, 0] * math.radians(angle)
    scale = 1 + draws[:, 1] * stretch
    cosine, sine = scale * turn.cos(), scale * turn.sin()
    height, width = images.shape[1:3]
    move_x, move_y = draws[:, 2] * 2 * shift / width, draws[:, 3] * 2 * shift / height
    theta = torch.stack([torch.stack([cosine, -sine, move_x], -1), torch.stack([sine, cosine, move_y], -1)], 1)
    grid = functional.affine_grid(theta, list(wide.shape), align_corners=False)
    return functional.grid_sample(wide, grid, align_corners=False).permute(0, 2, 3, 1).to(images.dtype)


def training_batch(
    digits: Digits, indices: Sequence[int], *, key: tuple[int, ...] | None
) -> tuple[Float[Tensor, "B 8 8 1"], Int[Tensor, " B"]]:
    """Return training images and labels, distorted unless `key` is None.

    Args:
        digits: the split data.
        indices: which training images.
        key: stream of the distortions, for instance (seed, epoch); None leaves the images as they are.

    Returns:
        Images [B, 8, 8, 1] and labels [B].
    """
    chosen = torch.as_tensor(list(indices), dtype=torch.int64)
    images, labels = digits.train_images[chosen], digits.train_labels[chosen]
    return (images if key is None else distort(images, indices, key=key)), labels
