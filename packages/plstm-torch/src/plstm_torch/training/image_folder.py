"""Images in folders by class, as arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

from plstm_torch.optional import UserError, require
from plstm_torch.training.held_out import Labelled, hold_out

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_FOLDERS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
Files = list[tuple[Path, int]]


@dataclass(frozen=True)
class ImageFolder:
    """Images [N, size, size, 3] of 8 bits and labels [N] of each split.

    Attributes:
        classes: names, by label.
        digest: SHA-256 of names and sizes of all files.
        train: images to train on.
        validation: images that choose the epoch; there may be none.
        test: images that are measured.
    """

    classes: tuple[str, ...]
    digest: str
    train: Labelled
    validation: Labelled
    test: Labelled


def load_image_folder(root: str | Path, *, size: int, held_out: float, validation: float = 0.0) -> ImageFolder:
    """Read root/train/CLASS/* beside root/val/CLASS/* or root/test/CLASS/* or both, or root/CLASS/*.

    What has no folder is taken out of the rest: first the test data, then those of the validation.

    Args:
        root: the folder.
        size: side of the images; the longer side is resized to it, and the rest stays black.
        held_out: share of each class that becomes test data where there is no folder test; the same files every time.
        validation: share of the rest of each class that chooses the epoch where there is no folder val. With 0 nothing
            does, and a folder val without a folder test is measured.

    Returns:
        The images.

    Raises:
        UserError: if Pillow is not installed, there are fewer than two classes, a class has no images, or an image
            cannot be read.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"root: expected a folder of images, got {root}, which is none")
    classes, splits = _splits(root, {"test": held_out, "validation": validation})
    digest = hashlib.sha256()
    for path, _ in (file for files in splits.values() for file in files):
        digest.update(f"{path.relative_to(root)} {path.stat().st_size}\n".encode())
    return ImageFolder(classes, digest.hexdigest(), **{split: _read(files, size) for split, files in splits.items()})


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


def _splits(root: Path, shares: Mapping[str, float]) -> tuple[tuple[str, ...], dict[str, Files]]:
    """The classes, and the files of each split: those of its folder, or a share of those that are trained on."""
    places = {
        split: next((root / name for name in names if (root / name).is_dir()), None)
        for split, names in _FOLDERS.items()
    }
    if not shares["validation"] and places["test"] is None:
        places["test"], places["validation"] = places["validation"], None
    named = places["train"] is not None and (places["validation"] or places["test"]) is not None
    top = (places["train"] if named else None) or root
    classes = _classes(top)
    found = {"train": _files(top, classes)}
    for key, split in enumerate(("test", "validation")):
        place = places[split] if named else None
        if place is None:
            found["train"], found[split] = _take_out(found["train"], shares[split], key=key or None)
        else:
            found[split] = _files(place, classes)
    return classes, found


def _classes(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")))
    if len(names) < 2:
        raise UserError(f"root: expected folders of at least two classes in {folder}, got {len(names)}")
    return names


def _files(folder: Path, classes: tuple[str, ...]) -> Files:
    found: Files = []
    for label, name in enumerate(classes):
        files = find_images(folder / name)
        if not files:
            raise UserError(f"root: expected images in {folder / name}, got none ({', '.join(_SUFFIXES)})")
        found += [(path, label) for path in files]
    return found


def find_images(folder: Path) -> list[Path]:
    """The images in a folder and those below it, by the endings of their names, in order."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)


def _take_out(files: Files, share: float, *, key: int | None) -> tuple[Files, Files]:
    """What stays, and a share of each class."""
    labels = np.array([label for _, label in files])
    alone = np.flatnonzero(np.bincount(labels)[labels] == 1)
    if key is None and len(alone):
        raise UserError(f"root: expected at least two images of each class, got one in {files[alone[0]][0].parent}")
    stays, held = hold_out(labels, share, key=key)
    return [files[place] for place in stays], [files[place] for place in held]


def _read(files: Files, size: int) -> Labelled:
    images = np.zeros((len(files), size, size, 3), np.uint8)
    for image, (path, _) in zip(images, files, strict=True):
        image[:] = fitted_image(path, (size, size), name="root")
    return Labelled(images, np.array([label for _, label in files], np.int64))


def fitted_image(path: Path, sides: tuple[int, int], *, name: str, channels: int = 3) -> ndarray:
    """Read an image and fit it into a frame; what it leaves free stays black.

    Args:
        path: of the file.
        sides: height and width of the frame.
        name: of the option that led here, for messages.
        channels: 3 for colors, 1 for brightness.

    Returns:
        [height, width, channels] of 8 bits.

    Raises:
        UserError: if Pillow is not installed, or the image cannot be read.
    """
    pillow = require("PIL.Image", "Pillow")
    try:
        with pillow.open(path) as opened:
            picture = opened.convert("RGB" if channels == 3 else "L")
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
        raise UserError(f"{name}: expected an image in {path}, got a file that cannot be read: {error}") from error
    scale = min(side / own for side, own in zip(sides, picture.size[::-1], strict=True))
    height, width = (max(1, min(side, round(own * scale))) for side, own in zip(sides, picture.size[::-1], strict=True))
    top, left = (sides[0] - height) // 2, (sides[1] - width) // 2
    image = np.zeros((*sides, channels), np.uint8)
    resized = np.asarray(picture.resize((width, height)))
    image[top : top + height, left : left + width] = resized.reshape(height, width, channels)
    return image
