"""Arrow pointing beyond the size of training: pLSTM-Vis with P, with D, with both in turns, and a ViT of equal size.

    python studies/arrows.py run --minutes 60     # what is missing in studies/results/arrows
    python studies/arrows.py report               # the table in docs/arrows.md, and its picture

Models and training are those of `plstm-torch train arrows --preset quick`, the images are others: their settings were
never chosen on them. Validation images of the size of training choose the epoch; test images are looked at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pages
import torch
from runs import description, run_missing, stored, train_once

import plstm_config
from plstm_torch.settings import ARROW_PRESETS, ArrowsSettings, TrainingSettings
from plstm_torch.training.image_tasks import ArrowsTask
from plstm_torch.training.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "studies/results/arrows"
PAGE, PICTURE = ROOT / "docs/arrows.md", ROOT / "docs/arrows.png"
SEEDS = (0, 1, 2)
TITLES = {"PD": "pLSTM-Vis, P and D in turns", "P": "pLSTM-Vis, P only", "D": "pLSTM-Vis, D only", "vit": "ViT"}
COLORS = {"PD": "#0b6e8a", "P": "#6a4c93", "D": "#3a8f4d", "vit": "#c4622d"}
SIZES = (32, 40, 48, 56, 64)
# The rate of the pLSTM is the preset's; that of the ViT is the one with the best validation accuracy of seed 0.
VIT_RATES = (2e-3, 1e-3, 5e-4, 2.5e-4, 1.25e-4, 6.25e-5)
TEST_IMAGES = 1000  # of each size
SUMMARY = ("seconds", "processor_seconds", "parameters", "chosen_epoch", "val_accuracy", "test_loss")
KEPT = ("epoch", "train_loss", "val_loss", "val_accuracy", "seconds")
_PAIR = "block_stack.block"


class StudyTask(ArrowsTask):
    """`train arrows` with other models, and without pictures at the end."""

    model = "PD"

    def model_config(self, dtype: str) -> Any:
        """Return the config of the model, see `ArrowsTask`; all have its width, heads and number of blocks."""
        config = super().model_config(dtype)
        if self.model in ("P", "D"):
            modes = {f"{_PAIR}.{block}.interaction_module.mode": self.model for block in ("block0", "block1")}
            return plstm_config.change(config, {f"{_PAIR}.block_mode": 2 * self.model, **modes})
        if self.model == "vit":
            sizes = {"dim": config.dim, "num_heads": self.settings.num_heads, "num_blocks": self.settings.num_blocks}
            same = {name: getattr(config, name) for name in ("resolution", "patch_size", "output_shape")}
            return plstm_config.preset("vit_tiny", **sizes, **same)
        return config

    def finish(self, model: Any, device: torch.device, folder: RunFolder) -> None:
        """Draw nothing."""


def recipe(model: str, seed: int, rate: float | None = None) -> dict[str, Any]:
    """Everything that defines a run: the preset, other images, and more sizes to test at."""
    data, training = ARROW_PRESETS["quick"]
    data = replace(data, data_seed=1, test_sizes=SIZES, test_images=TEST_IMAGES)
    training = replace(training, seed=seed, learning_rate=rate or training.learning_rate)
    return {"model": model, "data": asdict(data), "training": asdict(training)}


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """Train once.

    Args:
        settings: see `recipe`.

    Returns:
        What is written: settings, machine, seconds, a line for each epoch, and the accuracy on test images by size.
    """
    training = TrainingSettings(**{key: value for key, value in settings["training"].items() if key != "extensions"})
    task = StudyTask(ArrowsSettings(**settings["data"]), training.seed)
    task.model = settings["model"]
    summary, lines = train_once(task, training)
    smallest, *larger = settings["data"]["test_sizes"]
    return {
        "settings": settings,
        "machine": description(),
        **{key: summary[key] for key in SUMMARY},
        "test_accuracy": summary["test_accuracy"],
        "test_accuracies": {
            str(smallest): summary["test_accuracy"],
            **{str(size): summary[f"test_accuracy_{size}"] for size in larger},
        },
        "epochs": [{key: line[key] for key in KEPT} for line in lines],
    }


def vit_rate(out: Path) -> float | None:
    """The ViT's learning rate with the best accuracy on validation images, None before all were tried."""
    tried = {rate: stored(out / f"vit_{rate}_0.json", recipe("vit", 0, rate)) for rate in VIT_RATES}
    found = {rate: one["val_accuracy"] for rate, one in tried.items() if one}
    return max(found, key=lambda rate: found[rate]) if len(found) == len(VIT_RATES) else None


def wanted(out: Path, models: Sequence[str], seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Settings of the runs by the names of their files, seed by seed."""
    found = {}
    for seed in seeds:
        for model in models:
            rates = VIT_RATES if seed == 0 else (vit_rate(out),)
            if model == "vit":
                found |= {f"vit_{rate}_{seed}": recipe("vit", seed, rate) for rate in rates if rate}
            else:
                found[f"{model}_{seed}"] = recipe(model, seed)
    return found


def results(out: Path) -> dict[str, list[dict[str, Any]]]:
    """The runs of each model that are there and have today's settings, by seed; of the ViT those with its best rate."""
    rate = vit_rate(out)
    found: dict[str, list[dict[str, Any]]] = {}
    for model in TITLES:
        of_rate = rate if model == "vit" else None
        names = (f"{model}_{seed}" if model != "vit" else f"vit_{rate}_{seed}" for seed in SEEDS)
        runs = (
            stored(out / f"{name}.json", recipe(model, seed, of_rate)) for name, seed in zip(names, SEEDS, strict=True)
        )
        found[model] = [one for one in runs if one]
    return found


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Accuracy at the size of training and at twice that: mean, deviation and every seed."""
    ends = [str(size) for size in (SIZES[0], SIZES[-1])]
    header = ["model", "parameters", *(cell for size in ends for cell in (f"{size} x {size}", "each seed"))]
    rows = [
        [
            *(TITLES[model], f"{runs[0]['parameters']:,}"),
            *(cell for size in ends for cell in pages.accuracy([one["test_accuracies"][size] for one in runs])),
            f"{np.mean([one['processor_seconds'] for one in runs]):.0f}",
        ]
        for model, runs in found.items()
        if runs
    ]
    return pages.table([*header, "processor seconds of a run"], rows)


def draw(found: dict[str, list[dict[str, Any]]], picture: Path) -> None:
    """Accuracy on test images against their size, and on validation images after each epoch."""
    from plstm_torch.training.plots import new_figure

    figure = new_figure(11, 3.6)
    sizes, epochs = figure.subplots(1, 2)
    for model, runs in found.items():
        across = [[100 * one["test_accuracies"][str(size)] for size in SIZES] for one in runs]
        pages.draw_seeds(sizes, SIZES, across, COLORS[model], TITLES[model])
        curves = [[100 * epoch["val_accuracy"] for epoch in one["epochs"]] for one in runs]
        places = range(1, 1 + max(map(len, curves), default=0))
        pages.draw_seeds(epochs, places, curves, COLORS[model], TITLES[model])
    sizes.set_title(f"test accuracy (%), trained at {SIZES[0]} x {SIZES[0]}", fontsize=10, loc="left")
    sizes.set_xlabel("side of the test images in pixels")
    sizes.set_xticks(SIZES)
    epochs.set_title("validation accuracy (%)", fontsize=10, loc="left")
    epochs.set_xlabel("epoch")
    for axes in (sizes, epochs):
        axes.axhline(50, color="#999999", linewidth=0.8, linestyle=":")
        axes.spines[["top", "right"]].set_visible(False)
    sizes.legend(frameon=False, fontsize=8)
    figure.savefig(picture)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("--models", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many minutes")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.command == "run":
        for seed in options.seeds:  # what the other seeds need is known after the first
            runs = wanted(options.out, options.models, [seed])
            run_missing(options.out, runs, run, options.minutes, measure="test_accuracy")
    else:
        found = results(options.out)
        pages.write_table(PAGE, table(found))
        draw(found, PICTURE)


if __name__ == "__main__":
    main()
