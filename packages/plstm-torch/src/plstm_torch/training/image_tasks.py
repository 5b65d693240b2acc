"""The tasks on images: digits and arrow pointing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from plstm_torch.data import arrows, digits
from plstm_torch.data.arrows import ArrowDataset, ArrowGenerator, CachedArrows
from plstm_torch.training import plots
from plstm_torch.training.distributed import World
from plstm_torch.training.model_task import ModelTask, means, score_logits
from plstm_torch.training.order import Batch
from plstm_torch.training.run_folder import EXAMPLES_FILE, RunFolder
from plstm_torch.training.settings import TrainingSettings, from_mapping
from plstm_torch.training.task import Score
from plstm_torch.training.vision_settings import VisionSettings

_EVALUATION_BATCH = 64
GetImages = Callable[[Sequence[int]], Batch]


@dataclass(frozen=True, kw_only=True)
class DigitsSettings(VisionSettings):
    """Settings of the digits.

    Attributes:
        distort: whether training images are shifted, turned and scaled a little.
        label_smoothing: share of each training target that is spread evenly over all digits.
    """

    num_blocks: int = 2
    mark_bias: float = -1.0
    gate_spread: float = 0.5
    query_spread: float = 0.3
    convolution: bool = True
    distort: bool = True
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: naming the field, its value and what was expected.
        """
        super().__post_init__()
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing}: expected a number from 0 to below 1")


DIGITS_TRAINING = TrainingSettings(epochs=40, batch_size=64, learning_rate=2e-3, warmup_epochs=1.0)


class ImageTask(ModelTask):
    """Shared by the tasks whose model classifies images."""

    headline = "test_accuracy"
    predictions_per_sample = 1

    def evaluate_images(
        self, model: nn.Module, world: World, get_images: GetImages, num_images: int
    ) -> tuple[float, float]:
        """Return mean loss and accuracy over a set of images, shared out among the processes."""
        sums = {"loss": 0.0, "correct": 0.0, "count": 0.0}
        own = world.shard(range(num_images))
        for start in range(0, len(own), _EVALUATION_BATCH):
            images, labels = get_images(own[start : start + _EVALUATION_BATCH])
            score = self.score(model, (images.to(world.device), labels.to(world.device)))
            sums["loss"] += score.loss.item()
            sums["correct"] += score.correct.item()
            sums["count"] += score.count
        return means(sums, world)


def predict(model: nn.Module, images: Tensor, device: torch.device) -> Int[Tensor, " B"]:
    """Return the most likely class of each image, on the CPU."""
    with torch.no_grad():
        return model(images.to(device)).argmax(-1).cpu()


class DigitsTask(ImageTask):
    """Handwritten digits, 8 x 8 pixels."""

    name = "digits"

    def __init__(self, settings: DigitsSettings, seed: int) -> None:
        """Load the digits.

        Args:
            settings: model and distortions.
            seed: of the distortions.

        Raises:
            UserError: if scikit-learn is not installed.
        """
        self.settings, self.seed = settings, seed
        self.model_config("float32")
        self.digits = digits.load_digits()

    @classmethod
    def from_settings(cls, data: Mapping[str, Any], seed: int) -> "DigitsTask":
        """Make the task from what stands in training.json."""
        return cls(from_mapping(DigitsSettings, data), seed)

    @property
    def data_settings(self) -> dict[str, Any]:
        """Settings of the task, as they stand in training.json."""
        return asdict(self.settings)

    @property
    def num_samples(self) -> int:
        """Samples in an epoch."""
        return len(self.digits.train_labels)

    def batch(self, epoch: int, indices: Sequence[int]) -> Batch:
        """Return distorted training images and labels."""
        key = (self.seed, epoch) if self.settings.distort else None
        return digits.training_batch(self.digits, indices, key=key)

    def score(self, model: nn.Module, batch: Batch) -> Score:
        """Run the model on a batch; the targets are smoothed in training only."""
        smoothing = self.settings.label_smoothing if model.training else 0.0
        return score_logits(model(batch[0]), batch[1], label_smoothing=smoothing)

    def model_config(self, dtype: str) -> Any:
        """Return the model's config."""
        return self.settings.model_config(
            size=digits.IMAGE_SIZE, num_classes=digits.NUM_CLASSES, num_channels=1, dtype=dtype
        )

    def _test_images(self, indices: Sequence[int]) -> Batch:
        chosen = torch.as_tensor(list(indices), dtype=torch.int64)
        return self.digits.test_images[chosen], self.digits.test_labels[chosen]

    def evaluate(self, model: nn.Module, world: World) -> dict[str, float]:
        """Return loss and accuracy on the test images."""
        number = len(self.digits.test_labels)
        loss, accuracy = self.evaluate_images(model, world, self._test_images, number)
        return {"test_loss": loss, "test_accuracy": accuracy}

    def finish(self, model: nn.Module, device: torch.device, folder: RunFolder) -> None:
        """Draw test images with the model's answers, the wrong ones first."""
        model.eval()
        labels = self.digits.test_labels
        answers = predict(model, self.digits.test_images, device)
        chosen = (answers == labels).to(torch.int64).argsort(stable=True)[:40]
        figure = plots.image_grid(
            self.digits.test_images[chosen, :, :, 0].numpy(),
            [str(int(answer)) for answer in answers[chosen]],
            [str(int(label)) for label in labels[chosen]],
            columns=10,
        )
        folder.save_picture(EXAMPLES_FILE, figure.savefig)


@dataclass(frozen=True, kw_only=True)
class ArrowsSettings(VisionSettings):
    """Settings of arrow pointing.

    Attributes:
        image_size: side of the largest training images in pixels.
        smaller_sizes: sides of smaller training images; the epochs take turns with them and end at `image_size`.
            What changes from the smaller to the larger teaches a model what to expect beyond.
        test_sizes: sides of the test images; the first is `image_size`.
        train_images: number of training images of each size.
        test_images: number of test images of each size.
        data_seed: of the images; runs with different seeds see the same images.
        palette: "mono" or "color", see ArrowGenerator.
        scaling: "pixels" or "relative", see ArrowGenerator.
        radius: smallest and largest radius of the circle, as shares of `image_size`; so are the next two.
        length: smallest and largest length of the arrow.
        width: smallest and largest width of the arrow's shaft.
        margin: a miss passes the circle's centre at no less than this many radii.
        mirror: whether training images are mirrored and turned by quarter turns, differently in each epoch.
        cache: whether images stay in memory after they were drawn.
    """

    image_size: int = 48
    smaller_sizes: tuple[int, ...] = ()
    test_sizes: tuple[int, ...] = (48, 96)
    train_images: int = 8192
    test_images: int = 1000
    data_seed: int = 0
    palette: Literal["mono", "color"] = "mono"
    scaling: Literal["pixels", "relative"] = "pixels"
    radius: tuple[float, float] = (0.05, 0.12)
    length: tuple[float, float] = (0.16, 0.28)
    width: tuple[float, float] = (0.025, 0.045)
    margin: float = 1.2
    mirror: bool = False
    cache: bool = True

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            ValueError: naming the field, its value and what was expected.
        """
        super().__post_init__()
        for name in ("train_images", "test_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 1")
        if not self.test_sizes or self.test_sizes[0] != self.image_size:
            raise ValueError(f"test_sizes={self.test_sizes}: expected image_size={self.image_size} as the first")
        for size in self.smaller_sizes:
            if not 0 < size < self.image_size:
                raise ValueError(f"smaller_sizes={self.smaller_sizes}: expected sizes below {self.image_size}")
        for size in (*self.smaller_sizes, *self.test_sizes):
            if size % self.patch_size:
                raise ValueError(f"image size {size}: expected a multiple of patch_size={self.patch_size}")
        for size in self.test_sizes:
            if size < self.image_size:
                raise ValueError(f"test_sizes={self.test_sizes}: expected none below image_size={self.image_size}")

    def sizes_around(self, image_size: int, patch_size: int | None = None) -> dict[str, Any]:
        """Return these settings' sizes for training images of another size: tests at it and at twice that.

        Args:
            image_size: side of the training images in pixels.
            patch_size: side of a patch; None is that of these settings.

        Returns:
            The fields `test_sizes` and `smaller_sizes`, the latter in the same ratio, rounded up to whole patches.
        """
        patch = patch_size or self.patch_size
        rounded = (-(-size * image_size // (self.image_size * patch)) * patch for size in self.smaller_sizes)
        smaller = tuple(dict.fromkeys(size for size in rounded if size < image_size))
        return {"test_sizes": (image_size, 2 * image_size), "smaller_sizes": smaller}

    def generator(self) -> ArrowGenerator:
        """Return the generator of the images, at every size.

        Raises:
            ValueError: if a range is impossible.
        """
        names = ("palette", "scaling", "radius", "length", "width", "margin")
        return ArrowGenerator(base_size=self.image_size, **{name: getattr(self, name) for name in names})


_QUICK = ArrowsSettings(
    image_size=32,
    test_sizes=(32, 64),
    train_images=8192,
    test_images=500,
    palette="color",
    radius=(0.09, 0.12),
    length=(0.27, 0.33),
    width=(0.0525, 0.0675),
    mirror=True,
    patch_size=4,
    dim=64,
    num_heads=2,
    num_blocks=2,
    source_bias=-6.0,
    mark_bias=-1.0,
    gate_spread=1.0,
    angle_spread=0.5,
    angle_scale=8.0,
    query_spread=0.5,
    position=False,
    convolution=True,
)
# a multiple of three epochs ends at the largest of the three sizes of "mixed"
_QUICK_TRAINING = TrainingSettings(epochs=24, batch_size=32, learning_rate=2e-3, warmup_epochs=0.4)
# "quick" and "paper" train at one size; "mixed" is "quick" with smaller images among those of the training, which teach
# the model what changes with the size
ARROW_PRESETS: dict[str, tuple[ArrowsSettings, TrainingSettings]] = {
    "quick": (_QUICK, _QUICK_TRAINING),
    "mixed": (replace(_QUICK, smaller_sizes=(24, 28)), _QUICK_TRAINING),
    "paper": (
        ArrowsSettings(
            image_size=192,
            test_sizes=(192, 384),
            train_images=100_000,
            test_images=5_000,
            patch_size=16,
            dim=192,
            num_heads=3,
            num_blocks=12,
            cache=False,
        ),
        TrainingSettings(epochs=50, batch_size=128, learning_rate=1e-3, warmup_epochs=1.0, dtype="bfloat16"),
    ),
}


class ArrowsTask(ImageTask):
    """Does the arrow point at the circle? Trained up to one size, tested at that and at larger ones."""

    name = "arrows"

    def __init__(self, settings: ArrowsSettings, seed: int) -> None:
        """Set up the generator; nothing is drawn yet.

        Args:
            settings: images and model.
            seed: of the run; the images have their own.

        Raises:
            UserError: if Pillow is not installed.
        """
        self.settings, self.seed = settings, seed
        self.generator = settings.generator()
        for size in settings.smaller_sizes:
            self.generator.check_size(size)
        self.model_config("float32")
        self.generator.draw(self.generator.scene(settings.data_seed, "train", 0))
        self._trains = [self._images("train", size) for size in (*settings.smaller_sizes, settings.image_size)]
        self._tests = {size: self._images("test", size) for size in settings.test_sizes}

    @classmethod
    def from_settings(cls, data: Mapping[str, Any], seed: int) -> "ArrowsTask":
        """Make the task from what stands in training.json."""
        return cls(from_mapping(ArrowsSettings, data), seed)

    def with_test_sizes(self, sizes: Sequence[int]) -> "ArrowsTask":
        """Return the same task tested at the training size and these."""
        own = self.settings.image_size
        others = [size for size in sizes if size != own]
        return type(self)(replace(self.settings, test_sizes=(own, *others)), self.seed)

    @property
    def data_settings(self) -> dict[str, Any]:
        """Settings of the task, as they stand in training.json."""
        return asdict(self.settings)

    @property
    def num_samples(self) -> int:
        """Samples in an epoch."""
        return self.settings.train_images

    def batch(self, epoch: int, indices: Sequence[int]) -> Batch:
        """Return training images of the epoch's size, turned and mirrored if the settings say so, and labels."""
        images, labels = self._trains[epoch % len(self._trains)].batch(indices)
        if self.settings.mirror:
            images = arrows.mirror(images, indices, key=(self.seed, epoch))
        return images, labels

    def model_config(self, dtype: str) -> Any:
        """Return the model's config."""
        return self.settings.model_config(
            size=self.settings.image_size, num_classes=arrows.NUM_CLASSES, num_channels=3, dtype=dtype
        )

    def _images(self, split: Literal["train", "test"], size: int) -> CachedArrows:
        s = self.settings
        number = s.train_images if split == "train" else s.test_images
        dataset = ArrowDataset(self.generator, seed=s.data_seed, split=split, num_images=number, size=size)
        return CachedArrows(dataset, keep=s.cache)

    def evaluate(self, model: nn.Module, world: World) -> dict[str, float]:
        """Return loss and accuracy at the training size, and the accuracy at every size."""
        measured: dict[str, float] = {}
        for size, images in self._tests.items():
            loss, accuracy = self.evaluate_images(model, world, images.batch, self.settings.test_images)
            if size == self.settings.image_size:
                measured |= {"test_loss": loss, "test_accuracy": accuracy}
            else:
                measured[f"test_accuracy_{size}"] = accuracy
        return measured

    def finish(self, model: nn.Module, device: torch.device, folder: RunFolder) -> None:
        """Draw test images of the smallest and the largest size with the model's answers."""
        model.eval()
        pictures, answers, truths = [], [], []
        names = ("misses", "points at it")
        per_size = min(16, self.settings.test_images)
        largest = max(self._tests)
        for size in dict.fromkeys((self.settings.image_size, largest)):
            images, labels = self._tests[size].batch(range(per_size))
            answers += [names[int(answer)] for answer in predict(model, images, device)]
            truths += [names[int(label)] for label in labels]
            # one array holds one size: the small ones stand in the corner of a large frame
            frame = torch.full((per_size, largest, largest, 3), 0.85)
            frame[:, :size, :size] = 1 - images
            pictures.append(frame)
        figure = plots.image_grid(torch.cat(pictures).numpy(), answers, truths, columns=8)
        folder.save_picture(EXAMPLES_FILE, figure.savefig)
