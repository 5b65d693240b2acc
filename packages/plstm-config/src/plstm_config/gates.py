"""Source, mark and direct gates: bias [H, J...], and with `weight` an input-dependent part over sub-heads."""

from dataclasses import dataclass, field
from typing import Literal

from plstm_config.base import Config, DType, require, require_divisible, require_positive
from plstm_config.initializers import ConstantInitConfig, InitConfig, ZerosInitConfig

Activation = Literal["identity", "tanh", "logsigmoid"]


@dataclass(kw_only=True)
class GateLayerConfig(Config):
    """What the three gates share.

    Attributes:
        num_heads: heads H; 2D layers need one set for every orientation.
        sub_heads: slices s of the input; weight [H/s, s, J..., input_dim/s].
        input_dim: features of the input.
        weight: whether the gate depends on the input.
        activation: identity z, tanh a*tanh(z/a), or logsigmoid exp(a*logsigmoid(z)).
        activation_scale: a.
    """

    num_heads: int = 1
    sub_heads: int = 1
    input_dim: int = -1
    bias_init: InitConfig = field(default_factory=lambda: ConstantInitConfig(value=-5.0))
    weight_init: InitConfig = field(default_factory=ZerosInitConfig)
    weight: bool = False
    activation: Activation = "logsigmoid"
    activation_scale: float = 1.0
    dtype: DType = "bfloat16"
    param_dtype: DType = "float32"

    def _check(self) -> None:
        require_positive(self, "num_heads", "sub_heads")
        require(self.activation_scale > 0, f"activation_scale={self.activation_scale}: expected a positive number")
        if self.weight and self.input_dim > 0:
            require_divisible(self, "num_heads", "sub_heads")
            require_divisible(self, "input_dim", "sub_heads")


@dataclass(kw_only=True)
class SourceLayerConfig(GateLayerConfig):
    """What a node writes into its outgoing edges: [H, JT, JK, JV]."""

    class_name: str = field(init=False, default="SourceLayer")
    JK: int = 1
    JV: int = 1
    JT: int = 1

    def _check(self) -> None:
        super()._check()
        require_positive(self, "JK", "JV", "JT")


@dataclass(kw_only=True)
class MarkLayerConfig(GateLayerConfig):
    """What a node reads from its incoming edges: [H, JO, JQ, JT]."""

    class_name: str = field(init=False, default="MarkLayer")
    JQ: int = 1
    JO: int = 1
    JT: int = 1

    def _check(self) -> None:
        super()._check()
        require_positive(self, "JQ", "JO", "JT")


@dataclass(kw_only=True)
class DirectLayerConfig(GateLayerConfig):
    """What a node reads from itself: [H, JO, JQ, JK, JV]."""

    class_name: str = field(init=False, default="DirectLayer")
    JQ: int = 1
    JK: int = 1
    JO: int = 1
    JV: int = 1

    def _check(self) -> None:
        super()._check()
        require_positive(self, "JQ", "JK", "JO", "JV")
