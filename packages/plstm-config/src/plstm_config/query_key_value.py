"""Query, key and value: weight [max(1,H/s), D/max(1,s/H), J, s, input_dim/s], bias [H, D, J]."""

from abc import ABC, abstractmethod
from dataclasses import field
from typing import Literal

from plstm_config.base import Config, DType, frozen, require, require_divisible, require_positive
from plstm_config.initializers import InitConfig, SmallInitConfig, ZerosInitConfig
from plstm_config.parameters import Parameter


@frozen
class ProjectionLayerConfig(Config, ABC):
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
    dtype: DType = "float32"
    param_dtype: DType = "float32"

    @property
    @abstractmethod
    def _axes(self) -> tuple[str, str]:
        """Names of the head dimension and of the state-tracking dimension."""

    @property
    def head_sizes(self) -> tuple[int, int]:
        """Head dimension DK or DV, and state-tracking dimension."""
        head, state = self._axes
        return getattr(self, head), getattr(self, state)

    def parameters(self) -> dict[str, Parameter | None]:
        """`weight` [max(1, H/s), K / max(1, s/H), J, s, D/s] and, with `bias`, `bias` [H, K, J], K for DK or DV."""
        head, state = self._axes
        require_positive(self, "input_dim", head)
        size, tracked = getattr(self, head), getattr(self, state)
        heads, slices = self.num_heads, self.sub_heads
        # With more slices than heads, several slices share a head and each makes a part of its features.
        groups, part = max(1, heads // slices), size // max(1, slices // heads)
        shape = (groups, part, tracked, slices, self.input_dim // slices)
        weight = Parameter(shape, ("H", head, state, "s", "D"), self.weight_init, self.param_dtype)
        bias = Parameter((heads, size, tracked), ("H", head, state), self.bias_init, self.param_dtype, decay=False)
        return {"weight": weight, "bias": bias if self.bias else None}

    def _check(self) -> None:
        head, state = self._axes
        require_positive(self, "num_heads", "sub_heads", state)
        size = getattr(self, head)
        require(size == -1 or size >= 1, f"{head}: expected an integer >= 1, got {size}")
        if self.input_dim < 1 or size < 1:
            return
        heads, slices = self.num_heads, self.sub_heads
        require_divisible(self, "input_dim", "sub_heads")
        if slices <= heads:
            require_divisible(self, "num_heads", "sub_heads")
            return
        require_divisible(self, "sub_heads", "num_heads")
        per_head = slices // heads
        require(size % per_head == 0, f"{head}: expected a multiple of sub_heads/num_heads={per_head}, got {size}")


@frozen
class QueryLayerConfig(ProjectionLayerConfig):
    """Queries [H, DK, JQ].

    Examples:
        >>> import plstm_config
        >>> config = plstm_config.QueryLayerConfig(input_dim=16, num_heads=4, sub_heads=2, DK=4)
        >>> plstm_config.parameter_tree(config)["weight"].shape
        (2, 4, 1, 2, 8)
    """

    class_name: str = field(init=False, default="QueryLayer")
    DK: int = -1
    JQ: int = 1

    @property
    def _axes(self) -> tuple[str, str]:
        return ("DK", "JQ")


@frozen
class KeyLayerConfig(ProjectionLayerConfig):
    """Keys [H, DK, JK]."""

    class_name: str = field(init=False, default="KeyLayer")
    DK: int = -1
    JK: int = 1

    @property
    def _axes(self) -> tuple[str, str]:
        return ("DK", "JK")


@frozen
class ValueLayerConfig(ProjectionLayerConfig):
    """Values [H, DV, JV]."""

    class_name: str = field(init=False, default="ValueLayer")
    DV: int = -1
    JV: int = 1

    @property
    def _axes(self) -> tuple[str, str]:
        return ("DV", "JV")
