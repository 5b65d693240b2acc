"""Images in folders by class, as arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

from plstm_torch.optional import UserError, require

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_VALIDATION = ("val", "valid", "validation", "test")
Files = list[tuple[Path, int]]


@dataclass(frozen=True)
class ImageFolder:
    """Images [N, size, size, 3] of 8 bits and labels [N] of both splits.

    Attributes:
        classes: names, by label.
        digest: SHA-256 of names and sizes of all files.
        train_images: images to train on.
        train_labels: their labels.
        test_images: images that are held out.
        test_labels: their labels.
    """

    classes: tuple[str, ...]
    digest: str
    train_images: ndarray
    train_labels: ndarray
    test_images: ndarray
    test_labels: ndarray


def load_image_folder(root: str | Path, *, size: int, held_out: float) -> ImageFolder:
    """Read root/train/CLASS/* and root/val/CLASS/*, or root/CLASS/*, of which a share of each class is held out.

    Args:
        root: the folder.
        size: side of the images; the longer side is resized to it, and the rest stays black.
        held_out: share of each class that is held out where there is no folder val; the same files every time.

    Returns:
        The images.

    Raises:
        UserError: if Pillow is not installed, there are fewer than two classes, a class has no images, or an image
            cannot be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"root: expected a folder of images, got {root}, which is none")
    validation = next((root / name for name in _VALIDATION if (root / name).is_dir()), None)
    if (root / "train").is_dir() and validation is not None:
        classes = _classes(root / "train")
        train, test = _files(root / "train", classes), _files(validation, classes)
    else:
        classes = _classes(root)
        train, test = _held_out(_files(root, classes), held_out)
    digest = hashlib.sha256()
    for path, _ in (*train, *test):
        digest.update(f"{path.relative_to(root)} {path.stat().st_size}\n".encode())
    arrays = [array for files in (train, test) for array in _read(files, size)]
    return ImageFolder(classes, digest.hexdigest(), *arrays)


def augmented(images: ndarray, indices: Sequence[int], *, key: tuple[int, ...]) -> ndarray:
    """Mirror images and shift them by up to an eighth of their side, what leaves on one side being black on the other.

    Args:
        images: [N, size, size, 3].
        indices: of the images in their set; what happens to one depends on its index and the key alone.
        key: of the epoch.

    Returns:
        New images of the same shape and type.
    """
    reach = images.shape[1] // 8
    results = np.zeros_like(images)
    for image, result, index in zip(images, results, indices, strict=True):
        random = np.random.default_rng((*key, index))
        down, right = random.integers(-reach, reach + 1, 2)
        shown = image[:, ::-1] if random.random() < 0.5 else image
        inside = [slice(max(0, shift), image.shape[0] + min(0, shift)) for shift in (down, right)]
        source = [slice(max(0, -shift), image.shape[0] - max(0, shift)) for shift in (down, right)]
        result[inside[0], inside[1]] = shown[source[0], source[1]]
    return results


def _classes(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))
    if len(names) < 2:
        raise UserError(f"root: expected folders of at least two classes in {folder}, got {len(names)}")
    return names


def _files(folder: Path, classes: tuple[str, ...]) -> Files:
    found: Files = []
    for label, name in enumerate(classes):
        files = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in _SUFFIXES)
        if not files:
            raise UserError(f"root: expected images in {folder / name}, got none ({', '.join(_SUFFIXES)})")
        found += [(path, label) for path in files]
    return found


def _held_out(files: Files, share: float) -> tuple[Files, Files]:
    """Split each class by a drawing of its own; both parts have at least one image of each."""
    train: Files = []
    test: Files = []
    for label in sorted({label for _, label in files}):
        own = [file for file in files if file[1] == label]
        if len(own) < 2:
            raise UserError(f"root: expected at least two images of each class, got one in {own[0][0].parent}")
        order = np.random.default_rng(label).permutation(len(own))
        count = min(len(own) - 1, max(1, round(share * len(own))))
        test += [own[place] for place in sorted(order[:count])]
        train += [own[place] for place in sorted(order[count:])]
    return train, test


def _read(files: Files, size: int) -> tuple[ndarray, ndarray]:
    pillow = require("PIL.Image", "Pillow")
    images = np.zeros((len(files), size, size, 3), np.uint8)
    for image, (path, _) in zip(images, files, strict=True):
        try:
            with pillow.open(path) as opened:
                picture = opened.convert("RGB")
        except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
            raise UserError(f"root: expected an image in {path}, got a file that cannot be read: {error}") from error
        scale = size / max(picture.size)
        width, height = (max(1, min(size, round(side * scale))) for side in picture.size)
        top, left = (size - height) // 2, (size - width) // 2
        image[top : top + height, left : left + width] = np.asarray(picture.resize((width, height)))
    return images, np.array([label for _, label in files], np.int64)
