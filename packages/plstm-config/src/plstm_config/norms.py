"""Norms. Mean and scale are computed in float32 or higher, whatever `dtype` says of the output."""

from dataclasses import field
from typing import TypeAlias

from plstm_config.base import Config, DType, frozen, require, require_divisible, require_positive
from plstm_config.initializers import InitConfig, OnesInitConfig, ZerosInitConfig
from plstm_config.parameters import Parameter


@frozen
class NormLayerConfig(Config):
    """What all norms share.

    Attributes:
        input_dim: number of features.
        output_dim: the same; negative: filled.
        eps: added under the root.
        scale: whether there is a learned scale.
        bias: whether there is a learned bias.
    """

    input_dim: int = -1
    output_dim: int = -1
    eps: float = 1e-5
    dtype: DType = "float32"
    param_dtype: DType = "float32"
    bias: bool = False
    scale: bool = True
    bias_init: InitConfig = field(default_factory=ZerosInitConfig)
    scale_init: InitConfig = field(default_factory=OnesInitConfig)

    @property
    def _shape(self) -> dict[str, int]:
        """Size of each axis of scale and bias."""
        require_positive(self, "input_dim")
        return {"D": self.input_dim}

    def parameters(self) -> dict[str, Parameter | None]:
        """`scale` and `bias`, each if the flag of its name is set: [D], or [H, D/H] of norms over heads."""
        shape = self._shape
        inits = {"scale": self.scale_init, "bias": self.bias_init}
        return {
            name: Parameter(tuple(shape.values()), tuple(shape), init, self.param_dtype, decay=False)
            if getattr(self, name)
            else None
            for name, init in inits.items()
        }

    def _complete(self) -> None:
        self._derive("output_dim", self.input_dim)

    def _check(self) -> None:
        require(self.eps > 0, f"eps: expected a positive number, got {self.eps}")
        same = self.output_dim == self.input_dim
        require(same, f"output_dim: expected input_dim={self.input_dim}, a norm keeps its width, got {self.output_dim}")


@frozen
class RMSNormConfig(NormLayerConfig):
    """z / sqrt(mean(z**2) + eps) * scale + bias over the last axis."""

    class_name: str = field(init=False, default="RMSNorm")


@frozen
class LayerNormConfig(NormLayerConfig):
    """(z - mean) / sqrt(variance + eps) * scale + bias over the last axis, with the biased variance."""

    class_name: str = field(init=False, default="LayerNorm")


@frozen
class MultiHeadNormLayerConfig(NormLayerConfig):
    """A norm over the features of each head.

    Attributes:
        num_heads: number of heads.
        input_dim: features of all heads together.
        axis: axis of the heads; None: heads are slices of the last axis.
    """

    num_heads: int = -1
    axis: int | None = 1

    @property
    def _shape(self) -> dict[str, int]:
        require_positive(self, "input_dim", "num_heads")
        return {"H": self.num_heads, "DV": self.input_dim // self.num_heads}

    def _check(self) -> None:
        super()._check()
        if self.input_dim > 0 and self.num_heads != -1:
            require_divisible(self, "input_dim", "num_heads")


@frozen
class MultiHeadRMSNormConfig(MultiHeadNormLayerConfig):
    """RMS norm per head."""

    class_name: str = field(init=False, default="MultiHeadRMSNorm")


@frozen
class MultiHeadLayerNormConfig(MultiHeadNormLayerConfig):
    """Layer norm per head."""

    class_name: str = field(init=False, default="MultiHeadLayerNorm")


@frozen
class IdentityConfig(Config):
    """No norm."""

    class_name: str = field(init=False, default="Identity")


NormConfig: TypeAlias = (
    LayerNormConfig | RMSNormConfig | IdentityConfig | MultiHeadRMSNormConfig | MultiHeadLayerNormConfig
)
MultiHeadNormConfig: TypeAlias = MultiHeadRMSNormConfig | MultiHeadLayerNormConfig


def require_axis(name: str, norm: Config, *axes: int | None) -> None:
    """Raise a ValueError if a norm over heads looks for them where they are not.

    Args:
        name: field that holds the norm.
        norm: config of any norm.
        axes: where heads may be; None: slices of the last axis.

    Raises:
        ValueError: if it looks elsewhere.
    """
    axis = norm.axis if isinstance(norm, MultiHeadNormLayerConfig) else axes[0]
    require(axis in axes, f"{name}.axis: expected {' or '.join(map(str, axes))}, where heads are here, got {axis}")
