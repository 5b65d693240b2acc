"""Arrow pointing (paper section 5.1): does the arrow in the image point at the circle?

The answer needs the direction of one small thing and the place of another, however far apart. Positions are drawn
first, without looking at the label, and only the direction depends on it: an image whose arrow is hidden says nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from plstm_config.options import check_choice
from plstm_testing.datasets.errors import require
from plstm_testing.datasets.random_numbers import derive_seed, uniform

NUM_CLASSES = 2
_SPLITS = {"train": 1, "test": 2, "validation": 3}
Split = Literal["train", "validation", "test"]
_SUPERSAMPLING = 4
_HEAD_LENGTH = 0.45
_HEAD_WIDTH = 3.2
_PALETTES = {"mono": ((0, 0, 0), (0, 0, 0)), "color": ((196, 64, 32), (24, 84, 196))}


@dataclass(frozen=True)
class ArrowScene:
    """One image before it is drawn; lengths in pixels, y downwards.

    Attributes:
        size: side of the square image.
        circle: centre of the circle (x, y).
        radius: of the circle.
        middle: middle of the arrow (x, y).
        angle: where the arrow points, in radians from the x axis towards y.
        length: of the arrow from its end to its tip.
        width: of its shaft.
        label: 1 if the ray through the tip hits the circle, 0 if it misses it clearly.
    """

    size: int
    circle: tuple[float, float]
    radius: float
    middle: tuple[float, float]
    angle: float
    length: float
    width: float
    label: int

    @property
    def tip(self) -> tuple[float, float]:
        """The point (x, y) where the arrow's ray starts."""
        reach = self.length / 2
        return (self.middle[0] + reach * math.cos(self.angle), self.middle[1] + reach * math.sin(self.angle))


@dataclass(frozen=True, kw_only=True)
class ArrowGenerator:
    """Draws scenes at random; ranges are shares of `base_size`.

    Attributes:
        base_size: side of the training images in pixels.
        radius: smallest and largest radius of the circle.
        length: smallest and largest length of the arrow.
        width: smallest and largest width of the arrow's shaft.
        margin: a miss passes the circle's centre at no less than this many radii.
        scaling: "pixels" keeps the objects' size in pixels on larger images, so that distances grow;
            "relative" enlarges them with the image.
        palette: "mono" draws both in black, "color" the arrow in red and the circle in blue.

    Examples:
        >>> from plstm_testing.datasets import ArrowGenerator
        >>> scene = ArrowGenerator(base_size=32).scene(0, "train", 5, 32)
        >>> scene.label in (0, 1)
        True
    """

    base_size: int
    radius: tuple[float, float] = (0.05, 0.12)
    length: tuple[float, float] = (0.16, 0.28)
    width: tuple[float, float] = (0.025, 0.045)
    margin: float = 1.2
    scaling: Literal["pixels", "relative"] = "pixels"
    palette: Literal["mono", "color"] = "mono"

    def __post_init__(self) -> None:
        """Check that every pair of objects fits into the smallest image.

        Raises:
            ValueError: naming the field, its value and what was expected.
        """
        if self.base_size < 16:
            raise ValueError(f"base_size: expected at least 16, got {self.base_size}")
        if self.margin < 1:
            raise ValueError(f"margin: expected at least 1, got {self.margin}")
        check_choice("scaling", self.scaling, ("pixels", "relative"))
        check_choice("palette", self.palette, _PALETTES)
        for name in ("radius", "length", "width"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name}: expected 0 < smallest <= largest, got {(low, high)}")
        self.check_size(self.base_size)

    def check_size(self, size: int) -> None:
        """Check that every pair of objects fits into images of this size, with room to spare.

        Args:
            size: side of the images in pixels.

        Raises:
            ValueError: naming the ranges and the size.
        """
        side = size / self.base_size if self.scaling == "pixels" else 1.0
        diagonal = math.sqrt(2) * (side - self.radius[1] - _reach(self.length[1], self.width[1]))
        apart = self.length[1] / 2 + self.margin * self.radius[1]
        if diagonal < 1.3 * apart:
            raise ValueError(
                f"radius, length: expected sizes that fit into one image of {size} pixels, "
                f"got {self.radius} and {self.length}"
            )

    def scene(self, seed: int, split: Split, index: int, size: int | None = None) -> ArrowScene:
        """Return scene number `index`; two neighbours (2k, 2k + 1) always have different labels.

        Args:
            seed: of the data set.
            split: "train", "validation" or "test"; they share no random numbers.
            index: of the scene.
            size: side of the image; None is `base_size`.

        Returns:
            The scene, a function of the arguments only.
        """
        size = self.base_size if size is None else size
        unit = self.base_size if self.scaling == "pixels" else size
        first_label = derive_seed(seed, _SPLITS[split], index // 2, -1) & 1
        label = first_label ^ (index & 1)
        rng = np.random.Generator(np.random.PCG64(derive_seed(seed, _SPLITS[split], index, size)))
        radius, length, width = (unit * rng.uniform(*pair) for pair in (self.radius, self.length, self.width))
        circle, middle = self._positions(rng, size, radius, length, width)
        toward_x, toward_y = circle[0] - middle[0], circle[1] - middle[1]
        distance = math.hypot(toward_x, toward_y)
        if label:
            offset = rng.uniform(-1, 1) * math.asin(radius / distance)
        else:
            narrowest = math.asin(self.margin * radius / distance)
            offset = rng.choice((-1.0, 1.0)) * rng.uniform(narrowest, math.pi)
        angle = math.atan2(toward_y, toward_x) + offset
        return ArrowScene(size, circle, radius, middle, angle, length, width, label)

    def _positions(
        self, rng: np.random.Generator, size: int, radius: float, length: float, width: float
    ) -> tuple[tuple[float, float], tuple[float, float]]:
        """Place circle and arrow so that any direction of the arrow stays inside the image and off the circle."""
        arrow_border = _reach(length, width)
        while True:
            circle = rng.uniform(radius, size - radius, 2)
            middle = rng.uniform(arrow_border, size - arrow_border, 2)
            if math.dist(circle, middle) > length / 2 + self.margin * radius:
                return (float(circle[0]), float(circle[1])), (float(middle[0]), float(middle[1]))

    def draw(self, scene: ArrowScene) -> UInt8[ndarray, "size size 3"]:
        """Draw a scene on white, smoothed by drawing it four times as large.

        Args:
            scene: what to draw.

        Returns:
            [size, size, 3] uint8; the first axis is y.

        Raises:
            DatasetError: if Pillow is not installed.
        """
        image_module, draw_module = require("PIL.Image", "pillow"), require("PIL.ImageDraw", "pillow")
        canvas = image_module.new("RGB", (scene.size, scene.size), (255, 255, 255))
        arrow_color, circle_color = _PALETTES[self.palette]
        outlines = (_circle_outline(scene), circle_color), (_arrow_outline(scene), arrow_color)
        for (corners, is_circle), color in outlines:
            side = scene.size * _SUPERSAMPLING
            mask = image_module.new("L", (side, side), 0)
            pen = draw_module.Draw(mask)
            scaled = [(x * _SUPERSAMPLING, y * _SUPERSAMPLING) for x, y in corners]
            if is_circle:
                pen.ellipse(scaled, fill=255)
            else:
                pen.polygon(scaled, fill=255)
            canvas.paste(color, mask=mask.reduce(_SUPERSAMPLING))
        return np.array(canvas)


def _reach(length: float, width: float) -> float:
    """Return the distance from an arrow's middle to its farthest point: the tip, or a corner of a wide head."""
    back = abs(length * (0.5 - _HEAD_LENGTH))
    return max(math.hypot(length / 2, width / 2), math.hypot(back, width * _HEAD_WIDTH / 2))


def _circle_outline(scene: ArrowScene) -> tuple[list[tuple[float, float]], bool]:
    (x, y), r = scene.circle, scene.radius
    return [(x - r, y - r), (x + r, y + r)], True


def _arrow_outline(scene: ArrowScene) -> tuple[list[tuple[float, float]], bool]:
    neck = scene.length * (0.5 - _HEAD_LENGTH)
    half, head = scene.width / 2, scene.width * _HEAD_WIDTH / 2
    end, tip = -scene.length / 2, scene.length / 2
    along = [end, neck, neck, tip, neck, neck, end]
    across = [half, half, head, 0.0, -head, -half, -half]
    cosine, sine = math.cos(scene.angle), math.sin(scene.angle)
    x, y = scene.middle
    return [(x + a * cosine - b * sine, y + a * sine + b * cosine) for a, b in zip(along, across, strict=True)], False


class ArrowDataset:
    """Images of one split at one size, drawn when they are asked for.

    Item k is (image [size, size, 3] uint8, label), a function of the constructor's arguments and k only.

    Examples:
        >>> from plstm_testing.datasets import ArrowDataset, ArrowGenerator
        >>> data = ArrowDataset(ArrowGenerator(base_size=32), seed=0, split="test", num_images=10)
        >>> image, label = data[3]
        >>> image.shape, image.dtype, len(data)
        ((32, 32, 3), dtype('uint8'), 10)
    """

    def __init__(
        self,
        generator: ArrowGenerator,
        *,
        seed: int,
        split: Split,
        num_images: int,
        size: int | None = None,
    ) -> None:
        """Store what to draw.

        Args:
            generator: draws the scenes.
            seed: of the data set.
            split: "train", "validation" or "test".
            num_images: length of the data set; an even number is exactly balanced.
            size: side of the images; None is the generator's `base_size`.

        Raises:
            ValueError: if `split` is unknown or `num_images` not positive.
        """
        check_choice("split", split, _SPLITS)
        if num_images < 1:
            raise ValueError(f"num_images: expected at least 1, got {num_images}")
        self.generator, self.seed, self.split, self.num_images = generator, seed, split, num_images
        self.size = generator.base_size if size is None else size

    def __len__(self) -> int:
        """Return the number of images."""
        return self.num_images

    def scene(self, index: int) -> ArrowScene:
        """Return what image `index` shows."""
        if not 0 <= index < self.num_images:
            raise IndexError(f"index: expected 0 <= index < {self.num_images}, got {index}")
        return self.generator.scene(self.seed, self.split, index, self.size)

    def __getitem__(self, index: int) -> tuple[UInt8[ndarray, "size size 3"], int]:
        """Return image [size, size, 3] uint8 and label."""
        scene = self.scene(index)
        return self.generator.draw(scene), scene.label


class CachedArrows:
    """Batches of a data set, whose images may stay in memory after they were drawn."""

    def __init__(self, dataset: ArrowDataset, *, keep: bool) -> None:
        """Wrap `dataset`; nothing is drawn yet.

        Args:
            dataset: the images.
            keep: whether an image is drawn once only; it then takes 3 bytes a pixel.
        """
        self.dataset, self.keep = dataset, keep

    @cached_property
    def _store(self) -> tuple[ndarray, ndarray]:
        number, size = len(self.dataset), self.dataset.size
        return np.empty((number, size, size, 3), np.uint8), np.full(number, -1, np.int64)

    def batch(self, indices: Sequence[int]) -> tuple[Float[ndarray, "B size size 3"], Int[ndarray, " B"]]:
        """Return images as ink, 0 on the white ground to 1, float32, and labels int64."""
        if not self.keep:
            images, labels = zip(*(self.dataset[index] for index in indices), strict=True)
            return as_ink(np.stack(images)), np.array(labels, np.int64)
        stored, known = self._store
        for index in indices:
            if known[index] < 0:
                stored[index], known[index] = self.dataset[index]
        chosen = np.asarray(indices, np.int64)
        return as_ink(stored[chosen]), known[chosen]


def mirror(
    images: Float[ndarray, "B size size C"], indices: Sequence[int], *, key: tuple[int, ...]
) -> Float[ndarray, "B size size C"]:
    """Bring each square image into one of its eight orientations: mirrored or not, turned by quarter turns.

    None of them changes what the arrow points at. Which one it is depends on `key` and the image's index only.

    Args:
        images: [B, size, size, C].
        indices: index of each image in the training set.
        key: integers that name the stream, for instance (seed, epoch).

    Returns:
        The images, same shape and values.
    """
    chosen = (uniform(key, np.asarray(indices), 3) < 0.5)[:, :, None, None, None]
    images = np.where(chosen[:, 0], images[:, ::-1], images)
    images = np.where(chosen[:, 1], images[:, :, ::-1], images)
    # in memory the columns come first: the order decides the last bits of what a model computes
    return np.ascontiguousarray(np.where(chosen[:, 2], images, images.swapaxes(1, 2))).swapaxes(1, 2)


def as_ink(images: UInt8[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
    """Turn uint8 images on white into a model's input, float32: 0 where the ground is, 1 where the ink is."""
    return 1 - images.astype(np.float32) / np.float32(255)
