"""Norms. Mean and scale are computed in float32 or higher, whatever `dtype` says of the output."""

from dataclasses import dataclass, field
from typing import TypeAlias

from plstm_config.base import Config, DType, require, require_divisible
from plstm_config.initializers import InitConfig, OnesInitConfig, ZerosInitConfig


@dataclass(kw_only=True)
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

    def _complete(self) -> None:
        if self.output_dim < 0:
            self.output_dim = self.input_dim

    def _check(self) -> None:
        require(self.eps > 0, f"eps={self.eps}: expected a positive number")
        same = self.output_dim == self.input_dim
        require(same, f"output_dim={self.output_dim}: expected input_dim={self.input_dim}, a norm keeps its width")


@dataclass(kw_only=True)
class RMSNormConfig(NormLayerConfig):
    """z / sqrt(mean(z**2) + eps) * scale + bias over the last axis."""

    class_name: str = field(init=False, default="RMSNorm")


@dataclass(kw_only=True)
class LayerNormConfig(NormLayerConfig):
    """(z - mean) / sqrt(variance + eps) * scale + bias over the last axis, with the biased variance."""

    class_name: str = field(init=False, default="LayerNorm")


@dataclass(kw_only=True)
class MultiHeadNormLayerConfig(NormLayerConfig):
    """A norm over the features of each head.

    Attributes:
        num_heads: number of heads.
        input_dim: features of all heads together.
        axis: axis of the heads; None: heads are slices of the last axis.
    """

    num_heads: int = -1
    axis: int | None = 1

    def _check(self) -> None:
        super()._check()
        if self.input_dim > 0 and self.num_heads != -1:
            require_divisible(self, "input_dim", "num_heads")


@dataclass(kw_only=True)
class MultiHeadRMSNormConfig(MultiHeadNormLayerConfig):
    """RMS norm per head."""

    class_name: str = field(init=False, default="MultiHeadRMSNorm")


@dataclass(kw_only=True)
class MultiHeadLayerNormConfig(MultiHeadNormLayerConfig):
    """Layer norm per head."""

    class_name: str = field(init=False, default="MultiHeadLayerNorm")


@dataclass(kw_only=True)
class IdentityConfig(Config):
    """No norm."""

    class_name: str = field(init=False, default="Identity")


NormConfig: TypeAlias = (
    LayerNormConfig | RMSNormConfig | IdentityConfig | MultiHeadRMSNormConfig | MultiHeadLayerNormConfig
)
MultiHeadNormConfig: TypeAlias = MultiHeadRMSNormConfig | MultiHeadLayerNormConfig
