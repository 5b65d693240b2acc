"""Pointwise parts: passthrough, scale, drop path and scalar functions."""

from dataclasses import dataclass, field

from plstm_config.base import Config, DType, ModuleConfig, require
from plstm_config.initializers import InitConfig, OnesInitConfig


@dataclass(kw_only=True)
class PassthroughLayerConfig(ModuleConfig):
    """x * scale, beside a layer."""

    class_name: str = field(init=False, default="PassthroughLayer")
    scale_init: InitConfig = field(default_factory=OnesInitConfig)


@dataclass(kw_only=True)
class ScaleLayerConfig(ModuleConfig):
    """x * scale, behind a branch (layer scale)."""

    class_name: str = field(init=False, default="ScaleLayer")
    scale_init: InitConfig = field(default_factory=OnesInitConfig)


@dataclass(kw_only=True)
class DropPathConfig(Config):
    """Stochastic depth: in training a sample's branch is dropped with probability `drop_prob`."""

    class_name: str = field(init=False, default="DropPath")
    drop_prob: float = 0.0
    scale_by_keep: bool = True
    param_dtype: DType = "float32"
    dtype: DType = "bfloat16"

    def _check(self) -> None:
        require(0 <= self.drop_prob < 1, f"drop_prob={self.drop_prob}: expected 0 <= drop_prob < 1")


@dataclass(kw_only=True)
class TanhFunctionConfig(Config):
    """tanh(z)."""

    class_name: str = field(init=False, default="TanhFunctionLayer")


@dataclass(kw_only=True)
class SigmoidFunctionConfig(Config):
    """1 / (1 + exp(-z))."""

    class_name: str = field(init=False, default="SigmoidFunctionLayer")


@dataclass(kw_only=True)
class ExpExpFunctionConfig(Config):
    """exp(-scale * exp(-z))."""

    class_name: str = field(init=False, default="ExpExpFunctionLayer")
    scale: float = 0.1


@dataclass(kw_only=True)
class SoftCapFunctionConfig(Config):
    """scale * tanh(z / scale)."""

    class_name: str = field(init=False, default="SoftCapFunctionLayer")
    scale: float = 10.0

    def _check(self) -> None:
        require(self.scale > 0, f"scale={self.scale}: expected a positive number")
