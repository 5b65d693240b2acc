"""Image classification on a folder of one's own."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from plstm_config.folder import CONFIG_FILE, read_config
from plstm_torch.optional import UserError
from plstm_torch.pretrained import load_weights
from plstm_torch.settings.images import ImagesSettings
from plstm_torch.training import plots
from plstm_torch.training.distributed import World
from plstm_torch.training.held_out import Labelled
from plstm_torch.training.image_folder import augmented, load_image_folder
from plstm_torch.training.image_tasks import ImageTask, predict, tensors
from plstm_torch.training.model_configs import vision_config
from plstm_torch.training.model_task import described_split, score_logits
from plstm_torch.training.order import Batch
from plstm_torch.training.run_folder import EXAMPLES_FILE, RunFolder
from plstm_torch.training.task import Score, Split

_SHOWN = 40
_NAMED = 10
_SCALE = 1 / 255


class ImagesTask(ImageTask):
    """Images in folders by class."""

    name = "images"
    settings: ImagesSettings

    def __init__(self, settings: ImagesSettings, seed: int) -> None:
        """Read the images.

        Args:
            settings: images and model.
            seed: of the run.

        Raises:
            UserError: if the images cannot be read, or are no longer those that the run began with.
        """
        shares = {"held_out": settings.held_out, "validation": settings.validation}
        self.images = load_image_folder(settings.root, size=settings.image_size, **shares)
        if settings.digest and settings.digest != self.images.digest:
            raise UserError(f"{settings.root} does not hold the images that this run began with (they have changed)")
        place = str(Path(settings.root).resolve())
        self.settings, self.seed = replace(settings, digest=self.images.digest, root=place), seed
        self.model_config("float32")

    @property
    def num_samples(self) -> int:
        """Samples in an epoch."""
        return len(self.images.train.labels)

    def batch(self, epoch: int, indices: Sequence[int]) -> Batch:
        """Return training images, mirrored and shifted if the settings say so, and labels."""
        chosen = np.asarray(indices, np.int64)
        images = self.images.train.images[chosen]
        if self.settings.augment:
            images = augmented(images, indices, key=(self.seed, epoch))
        return tensors(Labelled(images, self.images.train.labels[chosen]).batch(range(len(chosen)), scale=_SCALE))

    def score(self, model: nn.Module, batch: Batch) -> Score:
        """Run the model on a batch; the targets are smoothed in training only."""
        smoothing = self.settings.label_smoothing if model.training else 0.0
        return score_logits(model(batch[0]), batch[1], label_smoothing=smoothing)

    def model_config(self, dtype: str) -> Any:
        """Return the model's config."""
        sizes = {"size": self.settings.image_size, "num_classes": len(self.images.classes), "num_channels": 3}
        return vision_config(self.settings, **sizes, dtype=dtype)

    def build_model(self, dtype: str) -> nn.Module:
        """Make the model, with the weights of `init_from` if it is given.

        Raises:
            UserError: if that folder cannot be read, or holds another model.
        """
        model = super().build_model(dtype)
        if self.settings.init_from is None:
            return model
        try:
            given: Any = read_config(self.settings.init_from)
            same_head = getattr(given, "output_shape", None) == (len(self.images.classes),)
            load_weights(model, self.settings.init_from, ignore=() if same_head else ("head",))
        except (FileNotFoundError, ValueError) as error:
            raise UserError(f"init_from: expected a folder of a model like this one: {error}") from error
        return model

    def describe(self) -> str:
        """What was found in the folder."""
        classes, images = self.images.classes, self.images
        shown = ", ".join(classes[:_NAMED]) + (", ..." if len(classes) > _NAMED else "")
        train, validation, test = (len(part.labels) for part in (images.train, images.validation, images.test))
        return f"{len(classes)} classes ({shown}): {described_split('images', train, validation, test)}"

    def save_model(self, model: nn.Module, folder: Path) -> None:
        """Write config.json and model.safetensors into a folder; the config with the names of the classes."""
        super().save_model(model, folder)
        description: Any = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        names = self.images.classes
        description["id2label"] = {str(label): name for label, name in enumerate(names)}  # as transformers has it
        description["label2id"] = {name: label for label, name in enumerate(names)}
        RunFolder(folder).save_text(CONFIG_FILE, json.dumps(description, indent=2) + "\n")

    def evaluate(self, model: nn.Module, world: World, split: Split) -> dict[str, float]:
        """Return loss and accuracy; see `Task.evaluate`."""
        data = self.images.validation if split == "validation" else self.images.test
        return self.evaluate_labelled(model, world, data, split, scale=_SCALE)

    def finish(self, model: nn.Module, device: torch.device, folder: RunFolder) -> None:
        """Draw test images with the model's answers, evenly chosen; see `Task.finish`."""
        model.eval()
        count = len(self.images.test.labels)
        chosen = np.linspace(0, count - 1, min(_SHOWN, count)).astype(np.int64)
        images, labels = self.images.test.batch(chosen, scale=_SCALE)
        answers = predict(model, torch.from_numpy(images), device).numpy()
        names = self.images.classes
        figure = plots.image_grid(
            images, [names[answer] for answer in answers], [names[label] for label in labels], columns=8
        )
        folder.save_picture(EXAMPLES_FILE, figure.savefig)
