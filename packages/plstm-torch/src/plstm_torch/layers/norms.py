"""Normalisation over the features, or over the features of each head."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from plstm_config import (
    IdentityConfig,
    LayerNormConfig,
    MultiHeadLayerNormConfig,
    MultiHeadRMSNormConfig,
    RMSNormConfig,
)
from plstm_config.checks import check_features, check_heads
from plstm_config.norms import MultiHeadNormLayerConfig, NormLayerConfig
from plstm_torch.build import register
from plstm_torch.dtypes import accumulation_dtype, without_autocast
from plstm_torch.module import Module, constant


def rms_normalize(z: Float[Tensor, "*batch D"], eps: float) -> Float[Tensor, "*batch D"]:
    """Z / sqrt(mean z**2 + eps), the mean over the last axis."""
    return z * torch.rsqrt(z.square().mean(-1, keepdim=True) + eps)


def layer_normalize(z: Float[Tensor, "*batch D"], eps: float) -> Float[Tensor, "*batch D"]:
    """(z - mean z) / sqrt(var z + eps) over the last axis, with the biased variance."""
    return rms_normalize(z - z.mean(-1, keepdim=True), eps)


class _Norm(Module):
    """What all norms share: parameters, and statistics and scale in float32 or higher."""

    config: NormLayerConfig
    normalize: Callable[[Tensor, float], Tensor]

    scale: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, config: NormLayerConfig) -> None:
        super().__init__(config)
        self._eps = constant(config.eps)

    def _apply_norm(self, x: Tensor) -> Tensor:
        """Normalise [..., *shape] over its last axis."""
        with without_autocast(x):
            work = torch.promote_types(accumulation_dtype(x.dtype), self.dtype)
            z = self.normalize(x.to(work), float(self._eps))
            if self.scale is not None:
                z = z * self.scale.to(work)
            if self.bias is not None:
                z = z + self.bias.to(work)
        return z.to(self.dtype)

    def extra_repr(self) -> str:
        """Sizes, for the printed module."""
        return f"{self.config.input_dim}, scale={self.scale is not None}, bias={self.bias is not None}"


class _FeatureNorm(_Norm):
    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """Normalise the last axis.

        Args:
            x: input [..., input_dim] of any floating dtype.

        Returns:
            Output of the same shape in the config's dtype.

        Raises:
            ValueError: if the last axis of x has another size.
        """
        check_features(x, "... D", self.config.input_dim)
        return self._apply_norm(x)


class _HeadNorm(_Norm):
    config: MultiHeadNormLayerConfig

    def __init__(self, config: MultiHeadNormLayerConfig) -> None:
        super().__init__(config)
        self.num_heads = config.num_heads
        self.head_dim = config.input_dim // config.num_heads

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Normalise the features of each head.

        Args:
            x: input with the heads on the config's `axis` and input_dim / num_heads features on the last axis, such
                as [B, H, ..., D / H] for axis 1; or [..., D] for axis None.

        Returns:
            Output of the same shape in the config's dtype.

        Raises:
            ValueError: if x has other sizes on these axes.
        """
        axis = self.config.axis
        if axis is None:
            check_features(x, "... D", self.config.input_dim)
            return self._apply_norm(x.unflatten(-1, (self.num_heads, self.head_dim))).flatten(-2)
        check_heads(x, self.num_heads, axis)
        check_features(x, "... D", self.head_dim)
        return self._apply_norm(x.movedim(axis, -2)).movedim(-2, axis)


@register(RMSNormConfig)
class RMSNorm(_FeatureNorm):
    """z / sqrt(mean z**2 + eps) * scale (+ bias), over the last axis.

    Parameters: `scale`, `bias` [D], each if the config's flag of that name is set.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> norm = plstm_torch.build(plstm_config.RMSNormConfig(input_dim=2))
        >>> norm(torch.tensor([3.0, 3.0])).detach()
        tensor([1.0000, 1.0000])
    """

    normalize = staticmethod(rms_normalize)


@register(LayerNormConfig)
class LayerNorm(_FeatureNorm):
    """(z - mean z) / sqrt(var z + eps) * scale (+ bias), over the last axis, with the biased variance.

    Parameters: `scale`, `bias` [D], each if the config's flag of that name is set.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> norm = plstm_torch.build(plstm_config.LayerNormConfig(input_dim=8))
        >>> norm(torch.rand(5, 8) + 100).mean().abs().item() < 1e-3
        True
    """

    normalize = staticmethod(layer_normalize)


@register(MultiHeadRMSNormConfig)
class MultiHeadRMSNorm(_HeadNorm):
    """RMS normalisation of each head's features.

    Parameters: `scale`, `bias` [H, D / H], each if the config's flag of that name is set.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> norm = plstm_torch.build(plstm_config.MultiHeadRMSNormConfig(input_dim=4, num_heads=2, axis=None))
        >>> norm(torch.tensor([1.0, 1.0, 5.0, 5.0])).detach()  # with axis=None the heads share the last axis
        tensor([1.0000, 1.0000, 1.0000, 1.0000])
    """

    normalize = staticmethod(rms_normalize)


@register(MultiHeadLayerNormConfig)
class MultiHeadLayerNorm(_HeadNorm):
    """Layer normalisation of each head's features.

    Parameters: `scale`, `bias` [H, D / H], each if the config's flag of that name is set.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> norm = plstm_torch.build(plstm_config.MultiHeadLayerNormConfig(input_dim=8, num_heads=2, axis=1))
        >>> norm(torch.rand(3, 2, 5, 4)).shape  # the heads are axis 1, each is normalised alone
        torch.Size([3, 2, 5, 4])
    """

    normalize = staticmethod(layer_normalize)


@register(IdentityConfig)
class Identity(Module):
    """No normalisation at all.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> block = plstm_config.PreUpProjectionBlockConfig(input_dim=16, norm=plstm_config.IdentityConfig())
        >>> plstm_torch.build(block).norm
        Identity()
    """

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the input itself."""
        return x
