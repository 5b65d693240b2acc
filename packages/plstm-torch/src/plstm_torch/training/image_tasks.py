"""The tasks on images: digits and arrow pointing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor, nn

from plstm_testing.datasets import ArrowDataset, ArrowGenerator, CachedArrows, arrows, digits
from plstm_torch.settings import ArrowsSettings, DigitsSettings
from plstm_torch.training import plots
from plstm_torch.training.distributed import World
from plstm_torch.training.held_out import Labelled, hold_out
from plstm_torch.training.model_configs import vision_config
from plstm_torch.training.model_task import PREFIX, ModelTask, means, score_logits
from plstm_torch.training.order import Batch
from plstm_torch.training.run_folder import EXAMPLES_FILE, RunFolder
from plstm_torch.training.task import Score, Split

_EVALUATION_BATCH = 64
GetImages = Callable[[Sequence[int]], tuple[ndarray, ndarray]]


def tensors(batch: tuple[ndarray, ndarray]) -> Batch:
    """Make tensors of images and labels."""
    images, labels = batch
    return torch.from_numpy(images), torch.from_numpy(labels)


class ImageTask(ModelTask):
    """Shared by the tasks whose model classifies images."""

    predictions_per_sample = 1

    def evaluate_images(
        self, model: nn.Module, world: World, get_images: GetImages, num_images: int
    ) -> tuple[float, float]:
        """Measure on a set of images, shared out among the processes.

        Args:
            model: the model.
            world: the processes.
            get_images: from indices to images and labels.
            num_images: number of images.

        Returns:
            Mean loss and accuracy, the same in every process.
        """
        sums = {"loss": 0.0, "correct": 0.0, "count": 0.0}
        own = world.share.of(range(num_images))
        for start in range(0, len(own), _EVALUATION_BATCH):
            images, labels = tensors(get_images(own[start : start + _EVALUATION_BATCH]))
            score = self.score(model, (images.to(world.device), labels.to(world.device)))
            sums["loss"] += score.loss.item()
            sums["correct"] += score.correct.item()
            sums["count"] += score.count
        return means(sums, world)

    def evaluate_labelled(
        self, model: nn.Module, world: World, data: Labelled, split: Split, scale: float = 1.0
    ) -> dict[str, float]:
        """Measure on images in memory.

        Args:
            model: the model.
            world: the processes.
            data: the images.
            split: what they are.
            scale: factor of their pixels.

        Returns:
            Loss and accuracy, nothing where there are no images.
        """
        if not len(data.labels):
            return {}
        loss, accuracy = self.evaluate_images(model, world, partial(data.batch, scale=scale), len(data.labels))
        return {f"{PREFIX[split]}_loss": loss, f"{PREFIX[split]}_accuracy": accuracy}


def predict(model: nn.Module, images: Tensor, device: torch.device) -> Int[Tensor, " B"]:
    """The most likely class of each image.

    Args:
        model: the model.
        images: [B, height, width, C].
        device: where the model is.

    Returns:
        Classes on the CPU.
    """
    with torch.no_grad():
        return model(images.to(device)).argmax(-1).cpu()


class DigitsTask(ImageTask):
    """Handwritten digits, 8 x 8 pixels."""

    name = "digits"
    settings: DigitsSettings

    def __init__(self, settings: DigitsSettings, seed: int) -> None:
        """Load the digits.

        Args:
            settings: model and distortions.
            seed: of the distortions.

        Raises:
            ValueError: if scikit-learn is not installed, or the model's sizes are impossible.
        """
        self.settings, self.seed = settings, seed
        self.model_config("float32")
        everything = digits.load_digits()
        train, validation = hold_out(everything.train_labels, settings.validation, key=1)
        images, labels = everything.train_images, everything.train_labels
        self.digits = replace(everything, train_images=images[train], train_labels=labels[train])
        self.held_out: dict[Split, Labelled] = {
            "validation": Labelled(images[validation], labels[validation]),
            "test": Labelled(everything.test_images, everything.test_labels),
        }

    @property
    def num_samples(self) -> int:
        """Samples in an epoch."""
        return len(self.digits.train_labels)

    def batch(self, epoch: int, indices: Sequence[int]) -> Batch:
        """Return distorted training images and labels."""
        key = (self.seed, epoch) if self.settings.distort else None
        return tensors(digits.training_batch(self.digits, indices, key=key))

    def score(self, model: nn.Module, batch: Batch) -> Score:
        """Run the model on a batch; the targets are smoothed in training only."""
        smoothing = self.settings.label_smoothing if model.training else 0.0
        return score_logits(model(batch[0]), batch[1], label_smoothing=smoothing)

    def model_config(self, dtype: str) -> Any:
        """Return the model's config."""
        sizes = {"size": digits.IMAGE_SIZE, "num_classes": digits.NUM_CLASSES, "num_channels": 1}
        return vision_config(self.settings, **sizes, dtype=dtype)

    def evaluate(self, model: nn.Module, world: World, split: Split) -> dict[str, float]:
        """Return loss and accuracy; see `Task.evaluate`."""
        return self.evaluate_labelled(model, world, self.held_out[split], split)

    def finish(self, model: nn.Module, device: torch.device, folder: RunFolder) -> None:
        """Draw test images with the model's answers, the wrong ones first; see `Task.finish`."""
        model.eval()
        labels = self.digits.test_labels
        answers = predict(model, torch.from_numpy(self.digits.test_images), device).numpy()
        chosen = (answers == labels).argsort(kind="stable")[:40]
        figure = plots.image_grid(
            self.digits.test_images[chosen, :, :, 0],
            [str(int(answer)) for answer in answers[chosen]],
            [str(int(label)) for label in labels[chosen]],
            columns=10,
        )
        folder.save_picture(EXAMPLES_FILE, figure.savefig)


def arrow_generator(settings: ArrowsSettings) -> ArrowGenerator:
    """Return the generator of the images, at every size.

    Raises:
        ValueError: if a range is impossible.
    """
    names = ("palette", "scaling", "radius", "length", "width", "margin")
    return ArrowGenerator(base_size=settings.image_size, **{name: getattr(settings, name) for name in names})


class ArrowsTask(ImageTask):
    """Does the arrow point at the circle? Trained up to one size, tested at that and at larger ones."""

    name = "arrows"
    settings: ArrowsSettings

    def __init__(self, settings: ArrowsSettings, seed: int) -> None:
        """Set up the generator; nothing is drawn yet.

        Args:
            settings: images and model.
            seed: of the run; the images have their own.

        Raises:
            UserError: if Pillow is not installed.
        """
        self.settings, self.seed = settings, seed
        self.generator = arrow_generator(settings)
        for size in settings.smaller_sizes:
            self.generator.check_size(size)
        self.model_config("float32")
        self.generator.draw(self.generator.scene(settings.data_seed, "train", 0))
        self._trains = [self._images("train", size) for size in (*settings.smaller_sizes, settings.image_size)]
        self._tests = {size: self._images("test", size) for size in settings.test_sizes}
        self._validation = self._images("validation", settings.image_size) if settings.validation_images else None

    @property
    def num_samples(self) -> int:
        """Samples in an epoch."""
        return self.settings.train_images

    def batch(self, epoch: int, indices: Sequence[int]) -> Batch:
        """Return training images of the epoch's size, turned and mirrored if the settings say so, and labels."""
        images, labels = self._trains[epoch % len(self._trains)].batch(indices)
        if self.settings.mirror:
            images = arrows.mirror(images, indices, key=(self.seed, epoch))
        return tensors((images, labels))

    def model_config(self, dtype: str) -> Any:
        """Return the model's config."""
        sizes = {"size": self.settings.image_size, "num_classes": arrows.NUM_CLASSES, "num_channels": 3}
        return vision_config(self.settings, **sizes, dtype=dtype)

    def _images(self, split: Literal["train", "validation", "test"], size: int) -> CachedArrows:
        s = self.settings
        number = {"train": s.train_images, "validation": s.validation_images, "test": s.test_images}[split]
        dataset = ArrowDataset(self.generator, seed=s.data_seed, split=split, num_images=number, size=size)
        return CachedArrows(dataset, keep=s.cache)

    def evaluate(self, model: nn.Module, world: World, split: Split) -> dict[str, float]:
        """Return loss and accuracy, of test images the accuracy at every size; see `Task.evaluate`."""
        if split == "validation":
            if self._validation is None:
                return {}
            number = self.settings.validation_images
            loss, accuracy = self.evaluate_images(model, world, self._validation.batch, number)
            return {"val_loss": loss, "val_accuracy": accuracy}
        measured: dict[str, float] = {}
        for size, images in self._tests.items():
            loss, accuracy = self.evaluate_images(model, world, images.batch, self.settings.test_images)
            if size == self.settings.image_size:
                measured |= {"test_loss": loss, "test_accuracy": accuracy}
            else:
                measured[f"test_accuracy_{size}"] = accuracy
        return measured

    def finish(self, model: nn.Module, device: torch.device, folder: RunFolder) -> None:
        """Draw test images of the smallest and the largest size with the model's answers; see `Task.finish`."""
        model.eval()
        pictures, answers, truths = [], [], []
        names = ("misses", "points at it")
        per_size = min(16, self.settings.test_images)
        largest = max(self._tests)
        for size in dict.fromkeys((self.settings.image_size, largest)):
            images, labels = tensors(self._tests[size].batch(range(per_size)))
            answers += [names[int(answer)] for answer in predict(model, images, device)]
            truths += [names[int(label)] for label in labels]
            # one array holds one size: the small ones stand in the corner of a large frame
            frame = torch.full((per_size, largest, largest, 3), 0.85)
            frame[:, :size, :size] = 1 - images
            pictures.append(frame)
        figure = plots.image_grid(torch.cat(pictures).numpy(), answers, truths, columns=8)
        folder.save_picture(EXAMPLES_FILE, figure.savefig)
