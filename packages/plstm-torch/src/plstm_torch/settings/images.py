"""Settings of image classification on a folder of one's own."""

from dataclasses import dataclass
from typing import ClassVar

from plstm_torch.settings.base import LARGEST_SIZE, setting
from plstm_torch.settings.run import TrainingSettings
from plstm_torch.settings.vision import VisionSettings


@dataclass(frozen=True, kw_only=True)
class ImagesSettings(VisionSettings):
    """Settings of one's own images.

    Attributes:
        root: folder with CLASS/*, or with train/CLASS/*, and val/CLASS/* or test/CLASS/* or both.
        digest: SHA-256 of names and sizes of the files when the run began; empty before that.
        held_out: share of each class that becomes the test data where there is no folder test.
        validation: share of the rest of each class that chooses the epoch where there is no folder val; 0: the last
            epoch is taken.
        image_size: side to which images are resized, the longer one; the rest is black.
        augment: whether training images are mirrored and shifted.
        label_smoothing: share of each training target that is spread evenly over all classes.
        init_from: folder of a saved vision model whose weights a new run begins with; its head is left out where it has
            other classes. The options of the model have to be those of the folder.
    """

    locations: ClassVar[tuple[str, ...]] = ("root",)

    root: str = setting()
    digest: str = setting("", option=None)
    held_out: float = setting(0.2, above=0, below=1)
    validation: float = setting(0.1, low=0, below=1)
    image_size: int = setting(64, low=1, high=LARGEST_SIZE, option="size")
    augment: bool = setting(True)
    label_smoothing: float = setting(0.1, low=0, below=1)
    init_from: str | None = setting(None)
    patch_size: int = setting(8, low=1, high=LARGEST_SIZE)
    # a gate sees dim / (4 * num_heads) features of the input: in a narrow model few heads see more, see the study
    num_heads: int = setting(2, low=1, high=LARGEST_SIZE, option="heads")
    # gates and angles that differ from patch to patch from the first step on, as in the presets of the arrows
    source_bias: float = setting(-6.0)
    mark_bias: float = setting(-1.0)
    gate_spread: float = setting(1.0, low=0)
    angle_spread: float = setting(0.5, low=0)
    angle_scale: float = setting(8.0)
    query_spread: float = setting(0.5, low=0)
    convolution: bool = setting(True)

    def __post_init__(self) -> None:
        """Check what the config cannot name as the user does.

        Raises:
            TypeError: if a value has another type.
            ValueError: naming the field, what was expected and what came.
        """
        super().__post_init__()
        self.expect(self.image_size % self.patch_size == 0, "image_size", f"a multiple of patch_size={self.patch_size}")


# For few images: what a small model lacks there is steps, and steps that are large enough, see docs/small_images.md.
IMAGES_TRAINING = TrainingSettings(epochs=40, batch_size=16, learning_rate=4e-3, warmup_epochs=4.0)
