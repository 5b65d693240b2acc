"""Query, Key and Value: linear maps of the node features, per head."""

import torch
from jaxtyping import Float
from torch import Tensor

from plstm_config import KeyLayerConfig, QueryLayerConfig, ValueLayerConfig
from plstm_config.query_key_value import ProjectionLayerConfig
from plstm_torch.build import register
from plstm_torch.dtypes import full_precision, torch_dtype, without_autocast
from plstm_torch.initializers import initialize_
from plstm_torch.layers.inputs import check_features
from plstm_torch.layers.norms import rms_normalize
from plstm_torch.module import Module, empty_parameter

_L2_EPSILON = 1e-5


class _HeadLinear(Module):
    """What the three maps share; they differ in the names of their sizes only."""

    def __init__(self, config: ProjectionLayerConfig, head_dim: int, state_dim: int) -> None:
        super().__init__()
        self.config = config
        self.dtype = torch_dtype(config.dtype)
        self.head_shape = (config.num_heads, head_dim, state_dim)
        param_dtype = torch_dtype(config.param_dtype)
        heads, sub_heads = config.num_heads, config.sub_heads
        # With more groups of features than heads, several groups share a head and each makes a part of its features.
        groups, part = max(1, heads // sub_heads), head_dim // max(1, sub_heads // heads)
        self.weight = empty_parameter((groups, part, state_dim, sub_heads, config.input_dim // sub_heads), param_dtype)
        self.bias = empty_parameter(self.head_shape, param_dtype) if config.bias else None
        self._reset_own_parameters()

    def _reset_own_parameters(self) -> None:
        initialize_(self.weight, self.config.weight_init)
        if self.bias is not None:
            initialize_(self.bias, self.config.bias_init)

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch H K J"]:
        """Map node features to heads.

        Args:
            x: Node features [..., input_dim] of any floating dtype.

        Returns:
            [..., num_heads, DK, JQ] (query), [..., num_heads, DK, JK] (key) or [..., num_heads, DV, JV] (value) in
            the config's dtype (or as the caller's autocast says).

        Raises:
            ValueError: If the last axis of x has another size.
        """
        check_features(x, "... D", self.config.input_dim)
        sub_heads, width = self.weight.shape[-2:]
        grouped = x.to(self.dtype).unflatten(-1, (sub_heads, width))
        z = torch.einsum("...id,pkjid->...pikj", grouped, self.weight.to(self.dtype))
        z = z.reshape(*x.shape[:-1], *self.head_shape)
        if self.bias is not None:
            z = z + self.bias.to(z.dtype)
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
    """

    def __init__(self, config: QueryLayerConfig) -> None:
        super().__init__(config, config.DK, config.JQ)


@register(KeyLayerConfig)
class KeyLayer(_HeadLinear):
    """Key K [..., H, DK, JK]: where in the state a node's value is written.

    out[p, i, k, j] = bias + sum_d weight[p, k, j, i, d] x[i, d] with x viewed as [..., s, D / s] (s = sub_heads) and
    (p, i, k) flattened into (H, DK); normalization "l2" divides by sqrt(mean(z**2 over JK) + 1e-5).

    Parameters: `weight` [max(1, H/s), DK / max(1, s/H), JK, s, D / s], `bias` [H, DK, JK].
    """

    def __init__(self, config: KeyLayerConfig) -> None:
        super().__init__(config, config.DK, config.JK)


@register(ValueLayerConfig)
class ValueLayer(_HeadLinear):
    """Value V [..., H, DV, JV]: what a node writes into the state.

    out[p, i, v, j] = bias + sum_d weight[p, v, j, i, d] x[i, d] with x viewed as [..., s, D / s] (s = sub_heads) and
    (p, i, v) flattened into (H, DV); normalization "l2" divides by sqrt(mean(z**2 over JV) + 1e-5).

    Parameters: `weight` [max(1, H/s), DV / max(1, s/H), JV, s, D / s], `bias` [H, DV, JV].
    """

    def __init__(self, config: ValueLayerConfig) -> None:
        super().__init__(config, config.DV, config.JV)
