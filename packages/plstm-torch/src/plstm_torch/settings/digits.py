"""Settings of the handwritten digits."""

from dataclasses import dataclass

from plstm_torch.settings.base import LARGEST_SIZE, setting
from plstm_torch.settings.run import TrainingSettings
from plstm_torch.settings.vision import VisionSettings


@dataclass(frozen=True, kw_only=True)
class DigitsSettings(VisionSettings):
    """Settings of the digits.

    Attributes:
        validation: share of the training images of each digit that choose the epoch and are not trained on; 0: the last
            epoch is taken.
        distort: whether training images are shifted, turned and scaled a little.
        label_smoothing: share of each training target that is spread evenly over all digits.
    """

    num_blocks: int = setting(2, low=1, high=LARGEST_SIZE, option="blocks")
    mark_bias: float = setting(-1.0)
    gate_spread: float = setting(0.5, low=0)
    query_spread: float = setting(0.3, low=0)
    convolution: bool = setting(True)
    validation: float = setting(0.1, low=0, below=1)
    distort: bool = setting(True)
    label_smoothing: float = setting(0.1, low=0, below=1)


DIGITS_TRAINING = TrainingSettings(epochs=40, batch_size=64, learning_rate=2e-3, warmup_epochs=1.0)
