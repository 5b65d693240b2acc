"""Source, mark and direct gates: bias [H, J...], and with `weight` an input-dependent part over sub-heads."""

from collections.abc import Sequence
from dataclasses import field
from typing import Any, Literal

from plstm_config.base import Config, DType, frozen, require, require_divisible, require_positive
from plstm_config.initializers import ConstantInitConfig, InitConfig, ZerosInitConfig
from plstm_config.parameters import Parameter

Activation = Literal["identity", "tanh", "logsigmoid"]


@frozen
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
    dtype: DType = "float32"
    param_dtype: DType = "float32"

    def _check(self) -> None:
        require_positive(self, "num_heads", "sub_heads")
        require(self.activation_scale > 0, f"activation_scale: expected a positive number, got {self.activation_scale}")
        if self.weight and self.input_dim > 0:
            require_divisible(self, "num_heads", "sub_heads")
            require_divisible(self, "input_dim", "sub_heads")

    @property
    def _axes(self) -> tuple[str, ...]:
        """The state-tracking dimensions of the gate."""
        return ()

    def parameters(self) -> dict[str, Parameter | None]:
        """`bias` [H, J...] and, with `weight`, `weight` [H/s, s, J..., D/s]."""
        inner = [(name, getattr(self, name)) for name in self._axes]
        return input_dependent(self, inner, ("bias", self.bias_init), ("weight", self.weight_init))


def input_dependent(
    config: Any, inner: Sequence[tuple[str, int]], bias: tuple[str, InitConfig], weight: tuple[str, InitConfig]
) -> dict[str, Parameter | None]:
    """The parameters of bias + weight x, with one set for every head, over slices of the input.

    Args:
        config: holds `num_heads`, `sub_heads`, `input_dim`, `weight`, `param_dtype` and the sizes of the axes.
        inner: letter and size of each of the axes J....
        bias: name and initialiser of the bias [H, J...].
        weight: name and initialiser of the weight [H/s, s, J..., D/s], None if `config.weight` is off.

    Returns:
        Both by name.

    Raises:
        ValueError: if a size is left open.
    """
    axes, sizes = tuple(name for name, _ in inner), tuple(size for _, size in inner)
    dtype = config.param_dtype
    found: dict[str, Parameter | None] = {
        bias[0]: Parameter((config.num_heads, *sizes), ("H", *axes), bias[1], dtype, decay=False),
        weight[0]: None,
    }
    if config.weight:
        require_positive(config, "input_dim")
        slices = config.sub_heads
        shape = (config.num_heads // slices, slices, *sizes, config.input_dim // slices)
        found[weight[0]] = Parameter(shape, ("H", "s", *axes, "D"), weight[1], dtype)
    return found


@frozen
class SourceLayerConfig(GateLayerConfig):
    """What a node writes into its outgoing edges: [H, JT, JK, JV]."""

    class_name: str = field(init=False, default="SourceLayer")
    JK: int = 1
    JV: int = 1
    JT: int = 1

    @property
    def _axes(self) -> tuple[str, ...]:
        return ("JT", "JK", "JV")

    def _check(self) -> None:
        super()._check()
        require_positive(self, "JK", "JV", "JT")


@frozen
class MarkLayerConfig(GateLayerConfig):
    """What a node reads from its incoming edges: [H, JO, JQ, JT]."""

    class_name: str = field(init=False, default="MarkLayer")
    JQ: int = 1
    JO: int = 1
    JT: int = 1

    @property
    def _axes(self) -> tuple[str, ...]:
        return ("JO", "JQ", "JT")

    def _check(self) -> None:
        super()._check()
        require_positive(self, "JQ", "JO", "JT")


@frozen
class DirectLayerConfig(GateLayerConfig):
    """What a node reads from itself: [H, JO, JQ, JK, JV]."""

    class_name: str = field(init=False, default="DirectLayer")
    JQ: int = 1
    JK: int = 1
    JO: int = 1
    JV: int = 1

    @property
    def _axes(self) -> tuple[str, ...]:
        return ("JO", "JQ", "JK", "JV")

    def _check(self) -> None:
        super()._check()
        require_positive(self, "JQ", "JK", "JO", "JV")
