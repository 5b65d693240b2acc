"""Source, Mark and Direct: how strongly a node writes, reads, and short-cuts its own input."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from plstm_config import DirectLayerConfig, MarkLayerConfig, SourceLayerConfig
from plstm_config.checks import check_features
from plstm_config.gates import GateLayerConfig
from plstm_torch.build import register
from plstm_torch.dtypes import accumulation_dtype, full_precision, without_autocast
from plstm_torch.functional import gate_activation
from plstm_torch.module import Module


def head_projection(
    x: Float[Tensor, "*batch D"], weight: Float[Tensor, "P s *inner d"], dtype: torch.dtype
) -> Float[Tensor, "..."]:
    """Linear map of groups of features to heads.

    out[p * s + i, ...] = sum_d weight[p, i, ..., d] x[i, d], with x viewed as [..., s, D / s]: the i-th of s groups
    of features feeds the heads i, s + i, 2 s + i, ...

    Args:
        x: input [..., D].
        weight: weights [P, s, inner..., D / s].
        dtype: dtype of the product.

    Returns:
        Products [..., P * s, inner...] in float32 or higher.
    """
    groups, sub_heads, *inner, width = weight.shape
    matrices = weight.to(dtype).reshape(groups, sub_heads, -1, width)
    grouped = x.to(dtype).unflatten(-1, (sub_heads, width))
    with without_autocast(x):
        product = torch.einsum("...sd,psjd->...psj", grouped, matrices)
    return full_precision(product).reshape(*x.shape[:-1], groups * sub_heads, *inner)


class _Gate(Module):
    """What the three gates share; they differ in their axes only."""

    config: GateLayerConfig
    bias: nn.Parameter
    weight: nn.Parameter | None

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "..."]:
        """Compute the gates of all nodes.

        Args:
            x: node features [..., input_dim] of any floating dtype.

        Returns:
            Gates [..., num_heads, J...] in float32 or higher: a narrower dtype would spoil their long products.

        Raises:
            ValueError: if the last axis of x has another size.
        """
        check_features(x, "... D", self.config.input_dim)
        z = self.bias.to(accumulation_dtype(self.dtype))
        if self.weight is not None:
            z = z + head_projection(x, self.weight, self.dtype)
        gate = gate_activation(z, self.config.activation, self.config.activation_scale)
        return gate.expand(*x.shape[:-1], *self.bias.shape)

    def extra_repr(self) -> str:
        """Sizes, for the printed module."""
        return f"{list(self.bias.shape)}, weight={self.weight is not None}, {self.config.activation}"


@register(SourceLayerConfig)
class SourceLayer(_Gate):
    """Source gate S: how a node's key and value enter the state of its outgoing edges (paper eq. 5).

    S[p s + i] = act(bias + sum_d weight[p, i, ..., d] x[i, d]), x viewed as [..., s, D / s] with s = sub_heads.

    Parameters: `bias` [H, JT, JK, JV] and, if the config's `weight` is set, `weight` [H / s, s, JT, JK, JV, D / s].

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> source = plstm_torch.build(plstm_config.SourceLayerConfig(input_dim=8, num_heads=2, JT=3))
        >>> source(torch.rand(5, 8)).shape  # [..., H, JT, JK, JV]
        torch.Size([5, 2, 3, 1, 1])
    """


@register(MarkLayerConfig)
class MarkLayer(_Gate):
    """Mark gate M: how a node reads the state of its incoming edges (paper eq. 6).

    M[p s + i] = act(bias + sum_d weight[p, i, ..., d] x[i, d]), x viewed as [..., s, D / s] with s = sub_heads.

    Parameters: `bias` [H, JO, JQ, JT] and, if the config's `weight` is set, `weight` [H / s, s, JO, JQ, JT, D / s].

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> config = plstm_config.MarkLayerConfig(input_dim=8, num_heads=2, JT=3, activation="logsigmoid")
        >>> mark = plstm_torch.build(config)(torch.rand(5, 8))  # [..., H, JO, JQ, JT]
        >>> mark.shape, bool((mark > 0).all() and (mark < 1).all())
        (torch.Size([5, 2, 1, 1, 3]), True)
    """


@register(DirectLayerConfig)
class DirectLayer(_Gate):
    """Direct gate D: how a node's key and value reach its own output (paper eq. 6).

    D[p s + i] = act(bias + sum_d weight[p, i, ..., d] x[i, d]), x viewed as [..., s, D / s] with s = sub_heads.

    Parameters: `bias` [H, JO, JQ, JK, JV] and, if the config's `weight` is set,
    `weight` [H / s, s, JO, JQ, JK, JV, D / s].

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> direct = plstm_torch.build(plstm_config.DirectLayerConfig(input_dim=8, num_heads=2, weight=False))
        >>> direct(torch.rand(5, 8)).shape  # [..., H, JO, JQ, JK, JV], here the same at every place
        torch.Size([5, 2, 1, 1, 1, 1])
    """
