"""Pointwise parts: passthrough, scale, drop path and scalar functions."""

from dataclasses import field

from plstm_config.base import Config, ModuleConfig, frozen, require, require_positive
from plstm_config.initializers import InitConfig, OnesInitConfig
from plstm_config.parameters import Parameter


@frozen
class FeatureScaleConfig(ModuleConfig):
    """What passthrough and layer scale share: x * scale."""

    scale_init: InitConfig = field(default_factory=OnesInitConfig)

    def parameters(self) -> dict[str, Parameter | None]:
        """`scale` [D]."""
        require_positive(self, "input_dim")
        return {"scale": Parameter((self.input_dim,), ("D",), self.scale_init, self.param_dtype, decay=False)}


@frozen
class PassthroughLayerConfig(FeatureScaleConfig):
    """x * scale, beside a layer."""

    class_name: str = field(init=False, default="PassthroughLayer")


@frozen
class ScaleLayerConfig(FeatureScaleConfig):
    """x * scale, behind a branch (layer scale)."""

    class_name: str = field(init=False, default="ScaleLayer")


@frozen
class DropPathConfig(Config):
    """Stochastic depth: in training a sample's branch is dropped with probability `drop_prob`."""

    class_name: str = field(init=False, default="DropPath")
    drop_prob: float = 0.0
    scale_by_keep: bool = True

    def _check(self) -> None:
        require(0 <= self.drop_prob < 1, f"drop_prob: expected 0 <= drop_prob < 1, got {self.drop_prob}")


@frozen
class TanhFunctionConfig(Config):
    """tanh(z)."""

    class_name: str = field(init=False, default="TanhFunctionLayer")


@frozen
class SigmoidFunctionConfig(Config):
    """1 / (1 + exp(-z))."""

    class_name: str = field(init=False, default="SigmoidFunctionLayer")


@frozen
class ExpExpFunctionConfig(Config):
    """exp(-scale * exp(-z))."""

    class_name: str = field(init=False, default="ExpExpFunctionLayer")
    scale: float = 0.1


@frozen
class SoftCapFunctionConfig(Config):
    """scale * tanh(z / scale)."""

    class_name: str = field(init=False, default="SoftCapFunctionLayer")
    scale: float = 10.0

    def _check(self) -> None:
        require(self.scale > 0, f"scale: expected a positive number, got {self.scale}")
