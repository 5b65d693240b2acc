"""The linear map of all layers, blocks and models."""

from __future__ import annotations

from dataclasses import field

from plstm_config.base import DType, ModuleConfig, frozen, require_positive
from plstm_config.initializers import InitConfig, SmallInitConfig, ZerosInitConfig
from plstm_config.parameters import Parameter


@frozen
class LinearConfig(ModuleConfig):
    """y = W x + b.

    Attributes:
        bias: whether there is b.
        axes: letters of the axes of the weight [output_dim, input_dim].
        bias_view: shape in which the bias is drawn; None: [output_dim].
    """

    class_name: str = field(init=False, default="Linear")
    bias: bool = True
    weight_init: InitConfig = field(default_factory=SmallInitConfig)
    bias_init: InitConfig = field(default_factory=ZerosInitConfig)
    axes: tuple[str, str] = ("F", "D")
    bias_view: tuple[int, ...] | None = None

    def parameters(self) -> dict[str, Parameter | None]:
        """`weight` [output_dim, input_dim] and, with `bias`, `bias` [output_dim]."""
        require_positive(self, "input_dim", "output_dim")
        dtype: DType = self.param_dtype
        bias = None
        if self.bias:
            shape = (self.output_dim,)
            bias = Parameter(shape, self.axes[:1], self.bias_init, dtype, decay=False, view=self.bias_view)
        weight = Parameter((self.output_dim, self.input_dim), self.axes, self.weight_init, dtype)
        return {"weight": weight, "bias": bias}
