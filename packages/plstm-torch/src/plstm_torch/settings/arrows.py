"""Settings of arrow pointing, and the presets of its command."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from plstm_torch.settings.base import LARGEST_COUNT, LARGEST_SEED, setting
from plstm_torch.settings.run import TrainingSettings
from plstm_torch.settings.vision import VisionSettings

LARGEST_IMAGE = 2**14  # side in pixels


@dataclass(frozen=True, kw_only=True)
class ArrowsSettings(VisionSettings):
    """Settings of arrow pointing.

    Attributes:
        image_size: side of the largest training images in pixels.
        smaller_sizes: sides of smaller training images; the epochs take turns with them and end at `image_size`.
            What changes from the smaller to the larger teaches a model what to expect beyond.
        test_sizes: sides of the test images; the first is `image_size`.
        train_images: number of training images of each size.
        validation_images: number of images of `image_size` that choose the epoch; 0: the last epoch is taken.
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

    image_size: int = setting(48, low=16, high=LARGEST_IMAGE, option="size")
    smaller_sizes: tuple[int, ...] = setting((), low=1, high=LARGEST_IMAGE)
    test_sizes: tuple[int, ...] = setting((48, 96), low=1, high=LARGEST_IMAGE)
    train_images: int = setting(8192, low=1, high=LARGEST_COUNT)
    validation_images: int = setting(1000, low=0, high=LARGEST_COUNT)
    test_images: int = setting(1000, low=1, high=LARGEST_COUNT)
    data_seed: int = setting(0, low=0, high=LARGEST_SEED)
    palette: Literal["mono", "color"] = setting("mono")
    scaling: Literal["pixels", "relative"] = setting("pixels")
    radius: tuple[float, float] = setting((0.05, 0.12), above=0)
    length: tuple[float, float] = setting((0.16, 0.28), above=0)
    width: tuple[float, float] = setting((0.025, 0.045), above=0)
    margin: float = setting(1.2, low=1)
    mirror: bool = setting(False)
    cache: bool = setting(True)

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            TypeError: if a value has another type.
            ValueError: naming the field, what was expected and what came.
        """
        super().__post_init__()
        first = self.test_sizes[:1] == (self.image_size,)
        self.expect(first, "test_sizes", f"image_size={self.image_size} as the first")
        smaller = all(size < self.image_size for size in self.smaller_sizes)
        self.expect(smaller, "smaller_sizes", f"sizes below image_size={self.image_size}")
        larger = all(size >= self.image_size for size in self.test_sizes)
        self.expect(larger, "test_sizes", f"none below image_size={self.image_size}")
        for name in ("image_size", "smaller_sizes", "test_sizes"):
            value = getattr(self, name)
            tiled = all(size % self.patch_size == 0 for size in (value if isinstance(value, tuple) else (value,)))
            self.expect(tiled, name, f"multiples of patch_size={self.patch_size}")

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


_QUICK = ArrowsSettings(
    image_size=32,
    test_sizes=(32, 64),
    train_images=8192,
    validation_images=500,
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
            validation_images=5_000,
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
