"""Settings that the models of all image tasks share."""

from dataclasses import dataclass

from plstm_torch.settings.base import LARGEST_SIZE, Settings, setting


@dataclass(frozen=True, kw_only=True)
class VisionSettings(Settings):
    """The model of an image task; the defaults are the paper's.

    Attributes:
        patch_size: side of a patch in pixels.
        dim: width of the model.
        num_heads: heads of each layer.
        num_blocks: blocks, an even number: P and D take turns.
        drop_path_rate: how often a pair of blocks is skipped in training.
        source_bias: initial bias of the source gates. The paper's -4 suits its large grids, where many small
            contributions add up; on a small grid they would drown in the epsilon of the norm that follows, unless
            `gate_spread` lets some nodes speak up.
        mark_bias: initial bias of the mark gates.
        gate_spread: standard deviation of the initial weights of source and mark. With 0 all nodes begin equally loud,
            and those that show nothing outnumber the others the more, the larger the grid.
        angle_spread: standard deviation of the initial weights of the P-mode angles.
        angle_scale: factor of these weights.
        query_spread: standard deviation of the initial biases of the queries. Without positional embedding a patch
            that shows nothing has no other query.
        position: whether there is a positional embedding. Without it positions are known by what reaches them.
        convolution: whether what the layers read passes a depthwise 3 x 3 convolution.
    """

    patch_size: int = setting(2, low=1, high=LARGEST_SIZE)
    dim: int = setting(64, low=1, high=LARGEST_SIZE)
    num_heads: int = setting(4, low=1, high=LARGEST_SIZE, option="heads")
    num_blocks: int = setting(4, low=1, high=LARGEST_SIZE, option="blocks")
    drop_path_rate: float = setting(0.0, low=0, below=1, option="drop-path")
    source_bias: float = setting(-4.0)
    mark_bias: float = setting(-4.0)
    gate_spread: float = setting(0.0, low=0)
    angle_spread: float = setting(0.0, low=0)
    angle_scale: float = setting(0.5)
    query_spread: float = setting(0.0, low=0)
    position: bool = setting(True)
    convolution: bool = setting(False)

    def __post_init__(self) -> None:
        """Check what the config cannot name as the user does.

        Raises:
            TypeError: if a value has another type.
            ValueError: naming the field, what was expected and what came.
        """
        super().__post_init__()
        self.expect(self.num_blocks % 2 == 0, "num_blocks", "an even number (P and D take turns)")
        self.expect(self.dim % self.num_heads == 0, "dim", f"a multiple of num_heads={self.num_heads}")
