"""pLSTM on grids."""

from dataclasses import field
from typing import ClassVar, Literal

from plstm_config.base import frozen, require, require_positive
from plstm_config.checks import Kind
from plstm_config.convolution import Convolution2DLayerConfig
from plstm_config.initializers import InitConfig, LinspaceInitConfig, ZerosInitConfig
from plstm_config.interaction import InteractionLayerConfig
from plstm_config.parameters import Child, Parameter


@frozen
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

    @property
    def orientations(self) -> tuple[int, ...]:
        """Orientations that the layer sums or averages over; bit 0 flips X, bit 1 flips Y."""
        return (0, 1, 2, 3)

    @property
    def num_orientations(self) -> int:
        """How many they are: O."""
        return len(self.orientations)

    @property
    def _gate_heads(self) -> int:
        return self.num_orientations * self.num_heads

    def _complete(self) -> None:
        super()._complete()
        if self.input_dim < 1:
            return
        if self.additional_convolution:
            width = {"input_dim": self.input_dim}
            self._child("convolution", Convolution2DLayerConfig, width, self._types())
        else:
            require(
                self.convolution is None, "convolution: expected None, since additional_convolution=False, got a config"
            )

    def children(self) -> dict[str, Child]:
        """Those of every layer, the convolution and the gates: one of each kind in P-mode, one a direction in D-mode.

        All gates but `direct` have H * O heads, index h * O + o.
        """
        source, transition, mark = self.source, self.transition, self.mark
        gates: dict[str, Child] = {"source": source, "transition": transition, "mark": mark}
        if self.mode == "D":
            transitions = dict.fromkeys(("transition_r", "transition_d", "transition_rd"), transition)
            gates = {"source_r": source, "source_d": source, **transitions, "mark_l": mark, "mark_u": mark}
        return {**super().children(), "convolution": self.convolution, **gates}

    def parameters(self) -> dict[str, Parameter | None]:
        """In P-mode `orientation_bias` [H, O] and `orientation_weight` [H, O, D].

        Their initialisers count the orientations first: a linspace over the last axis of the bias runs over the heads.
        """
        if self.mode == "D":
            return {}
        require_positive(self, "input_dim")
        shape, axes = (self.num_heads, self.num_orientations, self.input_dim), ("H", "O", "D")
        bias_init, weight_init = self.pmode_orientation_bias_init, self.pmode_orientation_weight_init
        bias = Parameter(shape[:2], axes[:2], bias_init, self.param_dtype, decay=False, order=(1, 0))
        weight = Parameter(shape, axes, weight_init, self.param_dtype, order=(1, 0, 2))
        return {"orientation_bias": bias, "orientation_weight": weight}


@frozen
class pLSTM2DLayerConfig(GridLayerConfig):
    """A pLSTM layer on grids [B, X, Y, input_dim] that averages over a list of orientations.

    Attributes:
        orientation_combinations: orientations; bit 0 flips X, bit 1 flips Y.

    Examples:
        >>> import plstm_config
        >>> config = plstm_config.pLSTM2DLayerConfig(input_dim=32, num_heads=4, orientation_combinations=(0, 3))
        >>> config.DK, plstm_config.parameter_tree(config)["orientation_bias"].shape
        (8, (4, 2))
    """

    kind: ClassVar[Kind] = "grid"
    class_name: str = field(init=False, default="pLSTM2DLayer")
    orientation_combinations: tuple[int, ...] = (0, 1, 2, 3)
    additional_passthrough: bool = True
    additional_convolution: bool = True

    @property
    def orientations(self) -> tuple[int, ...]:
        """Orientations that the layer averages over."""
        return self.orientation_combinations

    def _complete(self) -> None:
        known = self.orientation_combinations and set(self.orientation_combinations) <= {0, 1, 2, 3}
        require(
            bool(known), f"orientation_combinations: expected some of 0, 1, 2, 3, got {self.orientation_combinations}"
        )
        super()._complete()


@frozen
class pLSTM2DLayerFusedConfig(GridLayerConfig):
    """A pLSTM layer on grids [B, X, Y, input_dim] that sums all four orientations in one op.

    Examples:
        >>> import plstm_config
        >>> config = plstm_config.pLSTM2DLayerFusedConfig(input_dim=32, num_heads=4)
        >>> config.orientations
        (0, 1, 2, 3)
    """

    kind: ClassVar[Kind] = "grid"
    class_name: str = field(init=False, default="pLSTM2DLayerFused")
    additional_passthrough: bool = False
    additional_convolution: bool = False
