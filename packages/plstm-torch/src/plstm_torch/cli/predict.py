"""`plstm-torch predict`: what a trained vision model says of images."""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plstm_config.folder import CONFIG_FILE, read_config
from plstm_config.serialization import parse_json
from plstm_torch.optional import UserError, require
from plstm_torch.pretrained import from_pretrained
from plstm_torch.settings import MachineSettings
from plstm_torch.settings.commands import PredictSettings
from plstm_torch.training.distributed import choose_device
from plstm_torch.training.image_folder import find_images, fitted_image

_BATCH = 64
_LONGEST_NAME = 200


def predict(settings: PredictSettings, machine: MachineSettings) -> int:
    """Print the most likely classes of images with their probabilities, a line for each image as it is done.

    Args:
        settings: the model and the images.
        machine: where.

    Returns:
        The exit code.

    Raises:
        UserError: if the folder holds no vision model with classes, no image is given, the model's outputs are not
            finite, or, after all others are printed, some image cannot be read.
    """
    if not settings.files:
        raise UserError("FILE: expected images, or folders of images, got none")
    if machine.threads is not None:
        torch.set_num_threads(machine.threads)
    folder = Path(settings.folder)
    config = _config(folder)
    names = _names(folder, config.output_shape[0])
    files = [image for file in settings.files for image in _images(Path(file))]
    try:
        model: Any = from_pretrained(folder, choose_device(machine.device))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot load the model in {folder}: {error}") from error
    top = min(settings.top, len(names))
    table = csv.writer(sys.stdout, delimiter="\t", lineterminator="\n")
    unread: list[UserError] = []
    for path, probabilities in _probabilities(model, files, unread):
        if not probabilities.isfinite().all():
            raise UserError(f"folder: expected a model with finite outputs, got others from {folder} for {path}")
        best = probabilities.argsort(descending=True, stable=True)[:top].tolist()
        found = [(names[label], round(probabilities[label].item(), 4)) for label in best]
        if settings.json:
            print(json.dumps({"file": str(path), "classes": [{"class": name, "probability": p} for name, p in found]}))
        else:
            table.writerow(
                [_printable(str(path), len(str(path))), *(f"{name} {probability:.4f}" for name, probability in found)]
            )
        sys.stdout.flush()
    if unread:
        more = f" (and {len(unread) - 1} more of {len(files)})" if len(unread) > 1 else ""
        raise UserError(f"{unread[0]}{more}")
    return 0


def _config(folder: Path) -> Any:
    try:
        config: Any = read_config(folder)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"folder: expected one of a vision model: {error}") from error
    if config.class_name != "pLSTMVisionModel" or not config.has_head:
        held = config.class_name + (" without a head" if config.class_name == "pLSTMVisionModel" else "")
        raise UserError(f"folder: expected one of a vision model with classes, {folder} holds a {held}")
    return config


def _names(folder: Path, count: int) -> list[str]:
    """Names of the classes as they stand beside the config; their numbers where there are none."""
    description: Any = parse_json(folder / CONFIG_FILE)
    given = description.get("id2label")
    names = [given.get(str(label)) if isinstance(given, dict) else None for label in range(count)]
    return [_printable(name) if isinstance(name, str) else str(label) for label, name in enumerate(names)]


def _printable(name: str, longest: int = _LONGEST_NAME) -> str:
    """A stranger's word without what would control the terminal."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in name[:longest])


def _images(path: Path) -> Sequence[Path]:
    if not path.is_dir():
        return [path]
    found = find_images(path)
    if not found:
        raise UserError(f"FILE: expected images in {path}, got none")
    return found


def _probabilities(model: Any, files: Sequence[Path], unread: list[UserError]) -> Iterator[tuple[Path, torch.Tensor]]:
    """The probabilities of the classes for each image that can be read; what is said of the others goes to `unread`."""
    config, device = model.config, next(model.parameters()).device
    require("PIL.Image", "Pillow")
    for start in range(0, len(files), _BATCH):
        read = []
        for path in files[start : start + _BATCH]:
            try:
                image = fitted_image(path, tuple(config.resolution), name="FILE", channels=config.num_channels)
                read.append((path, image))
            except UserError as error:
                unread.append(error)
        if not read:
            continue
        paths, images = zip(*read, strict=True)
        pixels = (torch.from_numpy(np.stack(images)).float() / 255).to(device)
        with torch.no_grad():
            logits = model(pixels.permute(0, 3, 1, 2) if config.channels_first else pixels)
        yield from zip(paths, logits.float().softmax(-1).cpu(), strict=True)
