"""Query, Key and Value: linear maps of the node features, per head."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from plstm_config import KeyLayerConfig, QueryLayerConfig, ValueLayerConfig
from plstm_config.checks import check_features
from plstm_config.query_key_value import ProjectionLayerConfig
from plstm_torch.build import register
from plstm_torch.dtypes import full_precision, without_autocast
from plstm_torch.layers.norms import rms_normalize
from plstm_torch.module import Module

_L2_EPSILON = 1e-5


class _HeadLinear(Module):
    """What the three maps share; they differ in the names of their sizes only."""

    config: ProjectionLayerConfig
    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, config: ProjectionLayerConfig) -> None:
        super().__init__(config)
        self.head_shape = (config.num_heads, *config.head_sizes)

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch H K J"]:
        """Map node features to heads.

        Args:
            x: node features [..., input_dim] of any floating dtype.

        Returns:
            [..., num_heads, DK, JQ] (query), [..., num_heads, DK, JK] (key) or [..., num_heads, DV, JV] (value) in
            the config's dtype (or as the caller's autocast says).

        Raises:
            ValueError: if the last axis of x has another size.
        """
        check_features(x, "... D", self.config.input_dim)
        weight, bias = self.weight.to(self.dtype), None if self.bias is None else self.bias.to(self.dtype)
        sub_heads, width = weight.shape[-2:]
        if sub_heads == 1:
            z = F.linear(x.to(self.dtype), weight.reshape(-1, width), None if bias is None else bias.flatten())
            z = z.unflatten(-1, self.head_shape)
        else:
            grouped = x.to(self.dtype).unflatten(-1, (sub_heads, width))
            z = torch.einsum("...id,pkjid->...pikj", grouped, weight).reshape(*x.shape[:-1], *self.head_shape)
            z = z if bias is None else z + bias.to(z.dtype)
        if self.config.normalization == "l2":
            with without_autocast(x):
                z = rms_normalize(full_precision(z), _L2_EPSILON).to(z.dtype)
        return z

    def extra_repr(self) -> str:
        """Sizes, for the printed module."""
        return f"{self.config.input_dim} -> {list(self.head_shape)}, sub_heads={self.config.sub_heads}"


@register(QueryLayerConfig)
class QueryLayer(_HeadLinear):
    """Query Q [..., H, DK, JQ]: what a node looks for in the state.

    out[p, i, k, j] = bias + sum_d weight[p, k, j, i, d] x[i, d] with x viewed as [..., s, D / s] (s = sub_heads) and
    (p, i, k) flattened into (H, DK); normalization "l2" divides by sqrt(mean(z**2 over JQ) + 1e-5).

    Parameters: `weight` [max(1, H/s), DK / max(1, s/H), JQ, s, D / s], `bias` [H, DK, JQ].

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> query = plstm_torch.build(plstm_config.QueryLayerConfig(input_dim=8, num_heads=2, sub_heads=2, DK=4, JQ=1))
        >>> query(torch.rand(5, 8)).shape  # [..., H, DK, JQ]
        torch.Size([5, 2, 4, 1])
    """


@register(KeyLayerConfig)
class KeyLayer(_HeadLinear):
    """Key K [..., H, DK, JK]: where in the state a node's value is written.

    out[p, i, k, j] = bias + sum_d weight[p, k, j, i, d] x[i, d] with x viewed as [..., s, D / s] (s = sub_heads) and
    (p, i, k) flattened into (H, DK); normalization "l2" divides by sqrt(mean(z**2 over JK) + 1e-5).

    Parameters: `weight` [max(1, H/s), DK / max(1, s/H), JK, s, D / s], `bias` [H, DK, JK].
    """


@register(ValueLayerConfig)
class ValueLayer(_HeadLinear):
    """Value V [..., H, DV, JV]: what a node writes into the state.

    out[p, i, v, j] = bias + sum_d weight[p, v, j, i, d] x[i, d] with x viewed as [..., s, D / s] (s = sub_heads) and
    (p, i, v) flattened into (H, DV); normalization "l2" divides by sqrt(mean(z**2 over JV) + 1e-5).

    Parameters: `weight` [max(1, H/s), DV / max(1, s/H), JV, s, D / s], `bias` [H, DV, JV].
    """
