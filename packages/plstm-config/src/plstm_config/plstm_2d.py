"""pLSTM on grids."""

from dataclasses import dataclass, field
from typing import Literal

from plstm_config.base import child, require
from plstm_config.convolution import Convolution2DLayerConfig
from plstm_config.initializers import InitConfig, LinspaceInitConfig, ZerosInitConfig
from plstm_config.interaction import InteractionLayerConfig


@dataclass(kw_only=True)
class GridLayerConfig(InteractionLayerConfig):
    """What the two grid layers share.

    Attributes:
        mode: "P" directed propagation, "D" diffusive distribution.
        pmode_orientation_bias_init: start of the angles' biases [H, O].
        pmode_orientation_scale: factor of the input-dependent part of the angles.
        pmode_complement: "scaled": g*(1-a), stable; "original": 1 - a*g as in the research code.
        dmode_chirality: "L" drops the transition from right to down, "R" the one from down to right.
    """

    mode: Literal["D", "P"] = "P"
    pmode_orientation_bias_init: InitConfig = field(default_factory=lambda: LinspaceInitConfig(low=-2.0, high=2.0))
    pmode_orientation_weight_init: InitConfig = field(default_factory=ZerosInitConfig)
    pmode_orientation_scale: float = 0.5
    pmode_complement: Literal["scaled", "original"] = "scaled"
    dmode_chirality: Literal["L", "R"] = "L"
    convolution: Convolution2DLayerConfig | None = None
    convolution_inputs: str = "STMDQKsO"
    levels: int = 6

    @property
    def num_orientations(self) -> int:
        """Orientations O that the layer sums or averages over."""
        return 4

    @property
    def _gate_heads(self) -> int:
        return self.num_orientations * self.num_heads

    def _complete(self) -> None:
        super()._complete()
        if self.input_dim < 1:
            return
        if self.additional_convolution:
            width = {"input_dim": self.input_dim}
            self.convolution = child("convolution", self.convolution, Convolution2DLayerConfig, width, self._types())
        else:
            require(self.convolution is None, "convolution: expected None, since additional_convolution=False")


@dataclass(kw_only=True)
class pLSTM2DLayerConfig(GridLayerConfig):
    """A pLSTM layer on grids [B, X, Y, input_dim] that averages over a list of orientations.

    Attributes:
        orientation_combinations: orientations; bit 0 flips X, bit 1 flips Y.
    """

    class_name: str = field(init=False, default="pLSTM2DLayer")
    orientation_combinations: list[int] = field(default_factory=lambda: [0, 1, 2, 3])
    additional_passthrough: bool = True
    additional_convolution: bool = True

    @property
    def num_orientations(self) -> int:
        """Orientations O that the layer averages over."""
        return len(self.orientation_combinations)

    def _complete(self) -> None:
        known = self.orientation_combinations and set(self.orientation_combinations) <= {0, 1, 2, 3}
        require(bool(known), f"orientation_combinations={self.orientation_combinations}: expected some of 0, 1, 2, 3")
        super()._complete()


@dataclass(kw_only=True)
class pLSTM2DLayerFusedConfig(GridLayerConfig):
    """A pLSTM layer on grids [B, X, Y, input_dim] that sums all four orientations in one op."""

    class_name: str = field(init=False, default="pLSTM2DLayerFused")
    additional_passthrough: bool = False
    additional_convolution: bool = False
