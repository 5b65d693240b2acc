"""Query, key and value: weight [max(1,H/s), D/max(1,s/H), J, s, input_dim/s], bias [H, D, J]."""

from dataclasses import dataclass, field
from typing import Literal

from plstm_config.base import Config, DType, require, require_divisible, require_positive
from plstm_config.initializers import InitConfig, SmallInitConfig, ZerosInitConfig


@dataclass(kw_only=True)
class ProjectionLayerConfig(Config):
    """What query, key and value share.

    Attributes:
        num_heads: heads H.
        sub_heads: slices s of the input: a multiple or a divisor of H.
        input_dim: features of the input.
        bias: whether a bias is added.
        normalization: "none", or "l2": z / sqrt(mean(z**2) + 1e-5) over the last axis, after the bias.
    """

    num_heads: int = 1
    sub_heads: int = 1
    input_dim: int = -1
    bias: bool = True
    normalization: Literal["none", "l2"] = "none"
    bias_init: InitConfig = field(default_factory=ZerosInitConfig)
    weight_init: InitConfig = field(default_factory=SmallInitConfig)
    dtype: DType = "bfloat16"
    param_dtype: DType = "float32"

    def _check_heads(self, name: str) -> None:
        require_positive(self, "num_heads", "sub_heads")
        size = getattr(self, name)
        require(size == -1 or size >= 1, f"{name}={size} is not positive")
        if self.input_dim < 1 or size < 1:
            return
        heads, slices = self.num_heads, self.sub_heads
        require_divisible(self, "input_dim", "sub_heads")
        if slices <= heads:
            require_divisible(self, "num_heads", "sub_heads")
            return
        require_divisible(self, "sub_heads", "num_heads")
        per_head = slices // heads
        require(size % per_head == 0, f"{name}={size} is not divisible by sub_heads/num_heads={per_head}")


@dataclass(kw_only=True)
class QueryLayerConfig(ProjectionLayerConfig):
    """Queries [H, DK, JQ]."""

    class_name: str = field(init=False, default="QueryLayer")
    DK: int = -1
    JQ: int = 1

    def _check(self) -> None:
        require_positive(self, "JQ")
        self._check_heads("DK")


@dataclass(kw_only=True)
class KeyLayerConfig(ProjectionLayerConfig):
    """Keys [H, DK, JK]."""

    class_name: str = field(init=False, default="KeyLayer")
    DK: int = -1
    JK: int = 1

    def _check(self) -> None:
        require_positive(self, "JK")
        self._check_heads("DK")


@dataclass(kw_only=True)
class ValueLayerConfig(ProjectionLayerConfig):
    """Values [H, DV, JV]."""

    class_name: str = field(init=False, default="ValueLayer")
    DV: int = -1
    JV: int = 1

    def _check(self) -> None:
        require_positive(self, "JV")
        self._check_heads("DV")
