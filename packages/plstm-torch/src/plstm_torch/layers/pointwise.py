"""Layers that act on each number by itself: scales, drop path, scalar functions."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from plstm_config import (
    DropPathConfig,
    ExpExpFunctionConfig,
    PassthroughLayerConfig,
    ScaleLayerConfig,
    SigmoidFunctionConfig,
    SoftCapFunctionConfig,
    TanhFunctionConfig,
)
from plstm_config.checks import check_features
from plstm_torch.build import register
from plstm_torch.functional import eigenvalue_activation
from plstm_torch.module import Module, constant


class _FeatureScale(Module):
    config: PassthroughLayerConfig | ScaleLayerConfig
    scale: nn.Parameter

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """Multiply every feature by its scale.

        Args:
            x: input [..., input_dim] of any floating dtype.

        Returns:
            Output of the same shape in the config's dtype.

        Raises:
            ValueError: if the last axis of x has another size.
        """
        check_features(x, "... D", self.config.input_dim)
        return x.to(self.dtype) * self.scale.to(self.dtype)


@register(PassthroughLayerConfig)
class PassthroughLayer(_FeatureScale):
    """scale * x: the way around the recurrence inside of a pLSTM layer.

    Parameters: `scale` [D].

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> passthrough = plstm_torch.build(plstm_config.PassthroughLayerConfig(input_dim=8))
        >>> passthrough(torch.rand(5, 8)).shape
        torch.Size([5, 8])
    """


@register(ScaleLayerConfig)
class ScaleLayer(_FeatureScale):
    """scale * x: the layer scale of a residual branch.

    Parameters: `scale` [D].

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> half = plstm_config.ConstantInitConfig(value=0.5)
        >>> scale = plstm_torch.build(plstm_config.ScaleLayerConfig(input_dim=2, scale_init=half))
        >>> scale(torch.tensor([1.0, 2.0])).tolist()
        [0.5, 1.0]
    """


@register(DropPathConfig)
class DropPath(Module):
    """Stochastic depth: in training, a sample's branch is zero with probability drop_prob.

    With `scale_by_keep` the branches that stay are divided by 1 - drop_prob, so that the mean is kept. In evaluation
    the input passes unchanged. Random numbers come from torch's global state.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> drop = plstm_torch.build(plstm_config.DropPathConfig(drop_prob=0.5))
        >>> torch.unique(drop(torch.ones(64, 3))).tolist()  # whole samples vanish, the others are scaled up
        [0.0, 2.0]
        >>> drop.eval()(torch.ones(1, 3)).tolist()
        [[1.0, 1.0, 1.0]]
    """

    config: DropPathConfig

    def __init__(self, config: DropPathConfig) -> None:
        super().__init__(config)
        self._drop_prob = constant(config.drop_prob)

    def forward(self, x: Float[Tensor, "B ..."], samples: Int[Tensor, " B"] | None = None) -> Float[Tensor, "B ..."]:
        """Drop whole samples.

        Args:
            x: a branch's output; samples on the first axis.
            samples: first row of the sample that each row belongs to, where samples have several rows [B].

        Returns:
            Output of the same shape and dtype.
        """
        drop_prob = float(self._drop_prob)
        if not self.training or drop_prob == 0.0:
            return x
        keep_prob = 1.0 - drop_prob
        kept = torch.rand(x.shape[:1] + (1,) * (x.ndim - 1), device=x.device) < keep_prob
        if samples is not None:
            kept = kept.index_select(0, samples)
        divisor = keep_prob if self.config.scale_by_keep else 1.0
        return torch.where(kept, x / divisor, torch.zeros_like(x))

    def extra_repr(self) -> str:
        """The probability, for the printed module."""
        return f"drop_prob={self.config.drop_prob}"


@register(TanhFunctionConfig)
class TanhFunctionLayer(Module):
    """tanh(x)."""

    config: TanhFunctionConfig

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Apply the function; shape and dtype are kept."""
        return torch.tanh(x)


@register(SigmoidFunctionConfig)
class SigmoidFunctionLayer(Module):
    """1 / (1 + exp(-x))."""

    config: SigmoidFunctionConfig

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Apply the function; shape and dtype are kept."""
        return torch.sigmoid(x)


@register(ExpExpFunctionConfig)
class ExpExpFunctionLayer(Module):
    """exp(-c exp(-x)) with the config's scale c.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> decay = plstm_torch.build(plstm_config.ExpExpFunctionConfig())
        >>> decay(torch.tensor([-30.0, 30.0])).tolist()
        [0.0, 1.0]
    """

    config: ExpExpFunctionConfig

    def __init__(self, config: ExpExpFunctionConfig) -> None:
        super().__init__(config)
        self._scale = constant(config.scale)

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Apply the function; shape and dtype are kept."""
        return eigenvalue_activation(x, "expexp", float(self._scale))


@register(SoftCapFunctionConfig)
class SoftCapFunctionLayer(Module):
    """c tanh(x / c) with the config's scale c: near the identity for small x, never beyond c in magnitude.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> cap = plstm_torch.build(plstm_config.SoftCapFunctionConfig(scale=15.0))
        >>> cap(torch.tensor([0.0, 1e4])).tolist()
        [0.0, 15.0]
    """

    config: SoftCapFunctionConfig

    def __init__(self, config: SoftCapFunctionConfig) -> None:
        super().__init__(config)
        self._scale = constant(config.scale)

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Apply the function; shape and dtype are kept."""
        scale = float(self._scale)
        return scale * torch.tanh(x / scale)
