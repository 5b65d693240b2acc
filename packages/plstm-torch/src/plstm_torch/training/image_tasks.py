"""The tasks on images: digits and arrow pointing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

import plstm_config
from plstm_torch.data import arrows, digits
from plstm_torch.data.arrows import ArrowDataset, ArrowGenerator, CachedArrows
from plstm_torch.training import plots
from plstm_torch.training.distributed import World
from plstm_torch.training.model_task import ModelTask, means
from plstm_torch.training.order import Batch
from plstm_torch.training.run_folder import EXAMPLES_FILE, RunFolder
from plstm_torch.training.settings import TrainingSettings, from_mapping

_EVALUATION_BATCH = 64
GetImages = Callable[[Sequence[int]], Batch]


@dataclass(frozen=True, kw_only=True)
class VisionSettings:
    """The model of an image task.

    Attributes:
        patch_size: side of a patch in pixels.
        dim: width of the model.
        num_heads: heads of each layer.
        num_blocks: blocks, an even number: P and D take turns.
        drop_path_rate: how often a pair of blocks is skipped in training.
        gate_bias: initial bias of source and mark. The paper's -4 suits its large grids, where many small
            contributions add up; on a small grid they would drown in the epsilon of the norm that follows.
    """

    patch_size: int = 2
    dim: int = 64
    num_heads: int = 4
    num_blocks: int = 4
    drop_path_rate: float = 0.0
    gate_bias: float = -4.0

    def __post_init__(self) -> None:
        """Check what the config cannot name as the user does.

        Raises:
            ValueError: naming the field, its value and what was expected.
        """
        for name in ("patch_size", "dim", "num_heads", "num_blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 1")
        if self.num_blocks % 2:
            raise ValueError(f"num_blocks={self.num_blocks}: expected an even number (P and D take turns)")
        if self.dim % self.num_heads:
            raise ValueError(f"dim={self.dim}: expected a multiple of num_heads={self.num_heads}")

    def model_config(self, *, size: int, num_classes: int, num_channels: int, dtype: str) -> plstm_config.Config:
        """Return the config of a pLSTM-Vis for square images.

        Args:
            size: side of the images in pixels.
            num_classes: number of classes.
            num_channels: channels of the images.
            dtype: in which the model computes.

        Returns:
            The config.
        """
        config = plstm_config.preset(
            "plstm_vis_tiny",
            dim=self.dim,
            num_heads=self.num_heads,
            num_blocks=self.num_blocks // 2,
            patch_size=self.patch_size,
            drop_path_rate=self.drop_path_rate,
            resolution=(size, size),
            output_shape=(num_classes,),
            num_channels=num_channels,
            dtype=dtype,
            param_dtype="float64" if dtype == "float64" else "float32",
        )
        return self._with_gate_bias(config)

    def _with_gate_bias(self, config: Any) -> plstm_config.Config:
        pair = config.block_stack.block
        for block in (pair.block0, pair.block1):
            for gate in (block.interaction_module.source, block.interaction_module.mark):
                gate.bias_init = plstm_config.ConstantInitConfig(value=self.gate_bias)
        return config


@dataclass(frozen=True, kw_only=True)
class DigitsSettings(VisionSettings):
    """Settings of the digits.

    Attributes:
        distort: whether training images are shifted, turned and scaled a little.
    """

    gate_bias: float = -1.0
    distort: bool = True


DIGITS_TRAINING = TrainingSettings(epochs=25, batch_size=64, learning_rate=2e-3, warmup_epochs=1.0)


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
        image_size: side of the training images in pixels.
        test_sizes: sides of the test images; the first is the training size.
        train_images: number of training images.
        test_images: number of test images of each size.
        data_seed: of the images; runs with different seeds see the same images.
        palette: "mono" or "color", see ArrowGenerator.
        scaling: "pixels" or "relative", see ArrowGenerator.
        cache: whether images stay in memory after they were drawn.
    """

    image_size: int = 48
    test_sizes: tuple[int, ...] = (48, 96)
    train_images: int = 8192
    test_images: int = 1000
    data_seed: int = 0
    palette: Literal["mono", "color"] = "mono"
    scaling: Literal["pixels", "relative"] = "pixels"
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
        for size in self.test_sizes:
            if size % self.patch_size:
                raise ValueError(f"image size {size}: expected a multiple of patch_size={self.patch_size}")
            if size < self.image_size:
                raise ValueError(f"test_sizes={self.test_sizes}: expected none below image_size={self.image_size}")


ARROW_PRESETS: dict[str, tuple[ArrowsSettings, TrainingSettings]] = {
    "quick": (
        ArrowsSettings(patch_size=4, dim=64, num_heads=4, num_blocks=4),
        TrainingSettings(epochs=12, batch_size=64, learning_rate=2e-3, warmup_epochs=1.0),
    ),
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
    """Does the arrow point at the circle? Trained at one size, tested at that and at larger ones."""

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
        self.generator = ArrowGenerator(
            base_size=settings.image_size, palette=settings.palette, scaling=settings.scaling
        )
        self.model_config("float32")
        self.generator.draw(self.generator.scene(settings.data_seed, "train", 0))
        dataset = ArrowDataset(self.generator, seed=settings.data_seed, split="train", num_images=settings.train_images)
        self._train = CachedArrows(dataset, keep=settings.cache)
        self._tests = {size: self._test_set(size) for size in settings.test_sizes}

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
        """Return training images and labels."""
        return self._train.batch(indices)

    def model_config(self, dtype: str) -> Any:
        """Return the model's config."""
        return self.settings.model_config(
            size=self.settings.image_size, num_classes=arrows.NUM_CLASSES, num_channels=3, dtype=dtype
        )

    def _test_set(self, size: int) -> CachedArrows:
        s = self.settings
        dataset = ArrowDataset(self.generator, seed=s.data_seed, split="test", num_images=s.test_images, size=size)
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
