"""pLSTM-Vis and a ViT of equal width and depth on three small sets of images, by the recipe of `train images`.

    python studies/small_images.py run --minutes 60     # what is missing in studies/results/small_images
    python studies/small_images.py report               # the table in docs/small_images.md, and its picture

Every run trains on a folder of image files as a user's would, with the defaults of `plstm-torch train images`.
Validation chooses the epoch, and test images are looked at once.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pages
import torch
from numpy import ndarray
from PIL import Image
from runs import description, run_missing, stored, train_once

import plstm_config
from plstm_testing.datasets import ArrowDataset, ArrowGenerator, load_digits
from plstm_torch.settings import IMAGES_TRAINING, ImagesSettings, TrainingSettings
from plstm_torch.training.own_images_task import ImagesTask
from plstm_torch.training.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "studies/results/small_images"
PAGE, PICTURE = ROOT / "docs/small_images.md", ROOT / "docs/small_images.png"
SEEDS = (0, 1, 2, 3, 4)
MODELS = ("plstm_vis", "vit")
TITLES = {"plstm_vis": "pLSTM-Vis", "vit": "ViT"}
SPLITS = ("train", "val", "test")
WIDTH = 32
SUMMARY = (
    *("seconds", "processor_seconds", "parameters", "chosen_epoch"),
    *("val_accuracy", "test_accuracy", "test_loss"),
)
KEPT = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds")
Labelled = tuple[ndarray, ndarray]  # images [N, size, size, 3] or [N, size, size] of 8 bits, labels [N]


@dataclass(frozen=True)
class Set:
    """A small set of images.

    Attributes:
        make: from a split and its number of images to images and labels.
        counts: images of each split.
        options: settings of `train images` that the data ask for.
    """

    make: Callable[[str, int], Labelled]
    counts: tuple[int, int, int]
    options: dict[str, Any]


def shapes(split: str, count: int) -> Labelled:
    """Discs, rings and crosses of equal area in noise; the color says the class in about two of three images."""
    random = np.random.default_rng((7, SPLITS.index(split)))
    labels = np.arange(count) % 3
    return np.stack([_shape(random, label) for label in labels]), labels


def _shape(random: np.random.Generator, label: int, size: int = 32, finer: int = 4) -> ndarray:
    radius, hue = random.uniform(5, 8), 2 * np.pi * (label + random.normal(0, 0.5)) / 3
    middle = random.uniform(1.4 * radius, size - 1.4 * radius, 2)
    places = (np.arange(size * finer) + 0.5) / finer
    y, x = np.abs(places[:, None] - middle[0]), np.abs(places[None, :] - middle[1])
    away = np.hypot(x, y)
    inside = (
        away <= radius,
        (away >= 0.7 * radius) & (away <= np.sqrt(1.49) * radius),
        (np.minimum(x, y) <= 0.36 * radius) & (np.maximum(x, y) <= 1.27 * radius),
    )[label]
    cover = inside.reshape(size, finer, size, finer).mean((1, 3))[..., None]
    ground = random.uniform(0, 110, 3)
    color = 170 + 80 * np.cos(hue - 2 * np.pi * np.arange(3) / 3)
    noise = random.normal(0, 20, (size, size, 3))
    return np.clip(ground + cover * (color - ground) + noise, 0, 255).astype(np.uint8)


def digits(split: str, count: int) -> Labelled:
    """Handwritten digits; training and validation take the same number of each."""
    data = load_digits()
    if split == "test":
        images, labels = data.test_images[:count], data.test_labels[:count]
    else:
        ranks = _ranks(data.train_labels)
        begin = 0 if split == "val" else 10
        chosen = (ranks >= begin) & (ranks < begin + count // 10)
        images, labels = data.train_images[chosen], data.train_labels[chosen]
    return (images[..., 0] * 255).astype(np.uint8), labels


def _ranks(labels: ndarray) -> ndarray:
    one_hot = np.eye(10, dtype=np.int64)[labels]
    return (one_hot.cumsum(0) * one_hot).sum(1) - 1


def arrows(split: str, count: int) -> Labelled:
    """Does the arrow point up, down or sideways? The circle of the paper's task stands anywhere and says nothing."""
    sizes = {"radius": (0.15, 0.19), "length": (0.4, 0.48), "width": (0.08, 0.1)}
    generator = ArrowGenerator(base_size=24, palette="color", margin=1.8, **sizes)
    name: Any = "validation" if split == "val" else split
    data = ArrowDataset(generator, seed=0, split=name, num_images=count)
    down = np.sin([data.scene(index).angle for index in range(count)])
    images = 255 - np.stack([data[index][0] for index in range(count)])  # on black, as `train arrows` has them
    return images, np.digitize(down, (-0.5, 0.5))


SETS = {
    "shapes": Set(shapes, (162, 60, 600), {"image_size": 32, "patch_size": 4}),
    "digits": Set(digits, (200, 100, 355), {"image_size": 8, "patch_size": 2}),
    "arrows": Set(arrows, (200, 100, 600), {"image_size": 24, "patch_size": 4}),
}


class StudyTask(ImagesTask):
    """`train images` with another model, and without pictures at the end."""

    model = "plstm_vis"

    def model_config(self, dtype: str) -> Any:
        """Return the config of the model, see `ImagesTask`; the ViT has its width, heads and number of blocks."""
        config = super().model_config(dtype)
        if self.model == "plstm_vis":
            return config
        sizes = {"dim": config.dim, "num_heads": self.settings.num_heads, "num_blocks": 2 * config.num_blocks}
        same = {name: getattr(config, name) for name in ("resolution", "patch_size", "output_shape")}
        return plstm_config.preset("vit_tiny", **sizes, **same)

    def finish(self, model: Any, device: torch.device, folder: RunFolder) -> None:
        """Draw nothing."""


def write_folder(root: Path, name: str, counts: Sequence[int]) -> None:
    """Write a set as a user has it: root/train/CLASS/*.png beside root/val and root/test."""
    for split, count in zip(SPLITS, counts, strict=True):
        images, labels = SETS[name].make(split, count)
        for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            place = root / split / str(label) / f"{index:04}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place)


def recipe(name: str, model: str, seed: int) -> dict[str, Any]:
    """Everything that defines a run: the defaults of `train images`, and what the set asks for."""
    data = ImagesSettings(root="", dim=WIDTH, **SETS[name].options)
    training = replace(IMAGES_TRAINING, seed=seed)
    return {
        "set": name,
        "model": model,
        "images": dict(zip(SPLITS, SETS[name].counts, strict=True)),
        "data": {key: value for key, value in asdict(data).items() if key not in ("root", "digest", "init_from")},
        "training": asdict(training),
    }


def wanted(seeds: Sequence[int], sets: Sequence[str], models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings of the runs by the names of their files, seed by seed."""
    return {f"{name}_{model}_{seed}": recipe(name, model, seed) for seed in seeds for name in sets for model in models}


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """Train once.

    Args:
        settings: see `recipe`.

    Returns:
        What is written: settings, machine, seconds, a line for each epoch, and the accuracy on the test images.
    """
    training = TrainingSettings(**{key: value for key, value in settings["training"].items() if key != "extensions"})
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "images"
        write_folder(root, settings["set"], settings["images"].values())
        task = StudyTask(ImagesSettings(root=str(root), **settings["data"]), training.seed)
        task.model = settings["model"]
        summary, lines = train_once(task, training)
    return {
        "settings": settings,
        "machine": description(),
        **{key: summary[key] for key in SUMMARY},
        "epochs": [{key: line[key] for key in KEPT} for line in lines],
    }


def results(out: Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The runs of each set and model that are there and have today's settings, by seed."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name in SETS:
        for model in MODELS:
            runs = (stored(out / f"{name}_{model}_{seed}.json", recipe(name, model, seed)) for seed in SEEDS)
            found[name, model] = [one for one in runs if one]
    return found


def table(found: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
    """Accuracy on the test images: mean, deviation and every seed."""
    header = ["set", "model", "parameters", "test accuracy, mean and deviation", "each seed"]
    rows = [
        [
            *(name, TITLES[model], f"{runs[0]['parameters']:,}"),
            *pages.accuracy([one["test_accuracy"] for one in runs]),
            f"{np.mean([one['processor_seconds'] for one in runs]):.0f}",
        ]
        for (name, model), runs in found.items()
        if runs
    ]
    return pages.table([*header, "processor seconds of a run"], rows)


def draw(found: dict[tuple[str, str], list[dict[str, Any]]], picture: Path) -> None:
    """Accuracy on validation images after each epoch."""
    from plstm_torch.training.plots import new_figure

    figure = new_figure(11, 3.4)
    for axes, name in zip(figure.subplots(1, len(SETS), squeeze=False)[0], SETS, strict=True):
        for model, color in zip(MODELS, ("#0b6e8a", "#c4622d"), strict=True):
            curves = [[100 * epoch["val_accuracy"] for epoch in one["epochs"]] for one in found[name, model]]
            pages.draw_seeds(axes, range(1, 1 + max(map(len, curves), default=0)), curves, color, TITLES[model])
        axes.set_title(f"{name}: validation accuracy (%)", fontsize=10, loc="left")
        axes.set_xlabel("epoch")
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
    figure.savefig(picture)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many minutes")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.command == "run":
        runs = wanted(options.seeds, options.sets, options.models)
        run_missing(options.out, runs, run, options.minutes, measure="test_accuracy")
    else:
        found = results(options.out)
        pages.write_table(PAGE, table(found))
        draw(found, PICTURE)


if __name__ == "__main__":
    main()
