"""The model of an image task as its settings describe it."""

from dataclasses import dataclass
from typing import Any

import plstm_config

_CONVOLVED = "STMDQKVO"


@dataclass(frozen=True, kw_only=True)
class VisionSettings:
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

    patch_size: int = 2
    dim: int = 64
    num_heads: int = 4
    num_blocks: int = 4
    drop_path_rate: float = 0.0
    source_bias: float = -4.0
    mark_bias: float = -4.0
    gate_spread: float = 0.0
    angle_spread: float = 0.0
    angle_scale: float = 0.5
    query_spread: float = 0.0
    position: bool = True
    convolution: bool = False

    def __post_init__(self) -> None:
        """Check what the config cannot name as the user does.

        Raises:
            ValueError: naming the field, its value and what was expected.
        """
        for name in ("patch_size", "dim", "num_heads", "num_blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 1")
        for name in ("gate_spread", "angle_spread", "query_spread"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 or more")
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
        config: Any = plstm_config.preset(
            "plstm_vis_tiny",
            dim=self.dim,
            num_heads=self.num_heads,
            num_blocks=self.num_blocks // 2,
            patch_size=self.patch_size,
            drop_path_rate=self.drop_path_rate,
            use_pos_embed=self.position,
            resolution=(size, size),
            output_shape=(num_classes,),
            num_channels=num_channels,
            dtype=dtype,
            param_dtype="float64" if dtype == "float64" else "float32",
        )
        changes = {
            f"block_stack.block.{block}.interaction_module.{name}": value
            for block in ("block0", "block1")
            for name, value in self._adjustments().items()
        }
        return plstm_config.change(config, changes)

    def _adjustments(self) -> dict[str, Any]:
        """What the preset has no argument for, by its name in the config of a 2D layer."""
        found: dict[str, Any] = {
            "source.bias_init": plstm_config.ConstantInitConfig(value=self.source_bias),
            "source.weight_init": _noise(self.gate_spread),
            "mark.bias_init": plstm_config.ConstantInitConfig(value=self.mark_bias),
            "mark.weight_init": _noise(self.gate_spread),
            "query.bias_init": _noise(self.query_spread),
            "pmode_orientation_weight_init": _noise(self.angle_spread),
            "pmode_orientation_scale": self.angle_scale,
        }
        if self.convolution:
            found |= {"additional_convolution": True, "convolution_inputs": _CONVOLVED}
        return found


def _noise(spread: float) -> plstm_config.NormalInitConfig | plstm_config.ZerosInitConfig:
    return plstm_config.NormalInitConfig(stddev=spread) if spread else plstm_config.ZerosInitConfig()
