"""Source, Mark and Direct: how strongly a node writes, reads, and short-cuts its own input."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from plstm_config import DirectLayerConfig, MarkLayerConfig, SourceLayerConfig
from plstm_config.checks import check_features
from plstm_config.gates import GateLayerConfig
from plstm_torch.build import register
from plstm_torch.dtypes import accumulation_dtype, full_precision, without_autocast
from plstm_torch.functional import gate_activation
from plstm_torch.module import Module, constant


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
    flat = weight.to(dtype).flatten()  # so that its gradient is contiguous
    matrices = flat.unflatten(0, (groups, sub_heads, -1, width)).transpose(0, 1).reshape(sub_heads, -1, width)
    product = full_precision(slice_products(x.to(dtype), matrices))
    heads = product.unflatten(1, (groups, -1)).permute(3, 1, 0, 2)
    return heads.reshape(*x.shape[:-1], groups * sub_heads, *inner)


def slice_products(x: Float[Tensor, "*batch D"], matrices: Float[Tensor, "s M d"]) -> Float[Tensor, "s M N"]:
    """A product of every slice of the features with a matrix of its own.

    Args:
        x: N nodes [..., D], viewed as [N, s, D / s].
        matrices: [s, M, D / s].

    Returns:
        Products [s, M, N], the nodes last.
    """
    sub_heads, _, width = matrices.shape
    slices = x.reshape(math.prod(x.shape[:-1]), sub_heads, width).permute(1, 2, 0)
    with without_autocast(x):
        return torch.bmm(matrices, slices)


@dataclass(frozen=True)
class ScalarGate:
    """A gate that is a number for every head: activate(bias + weight x).

    Attributes:
        bias: of H numbers.
        weight: of P * s * D / s numbers, see `head_projection`.
        kind: what weights have to agree in to stand in one product: dtype to compute in, P, s, D / s.
        function: name and number that tell apart what `activate` computes.
        activate: from pre-activations to gates, number by number.
        axes: number of the gate's axes behind the heads, all of size one.
    """

    bias: Tensor
    weight: Tensor
    kind: tuple[torch.dtype, int, int, int]
    function: tuple[str, str]
    activate: Callable[[Tensor], Tensor]
    axes: int


class _Gate(Module):
    """What the three gates share; they differ in their axes only."""

    config: GateLayerConfig
    bias: nn.Parameter
    weight: nn.Parameter | None

    def __init__(self, config: GateLayerConfig) -> None:
        super().__init__(config)
        self._activation_scale = constant(config.activation_scale)

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
        return self._activate(z).expand(*x.shape[:-1], *self.bias.shape)

    def _activate(self, z: Tensor) -> Tensor:
        return gate_activation(z, self.config.activation, float(self._activation_scale))

    def scalar_gate(self) -> ScalarGate | None:
        """The same as a number for every head, None if it is more than that, or does not depend on the input."""
        if self.weight is None or any(size != 1 for size in self.bias.shape[1:]):
            return None
        groups, sub_heads, *inner, width = self.weight.shape
        kind = (self.dtype, groups, sub_heads, width)
        function = (self.config.activation, self._activation_scale)
        return ScalarGate(self.bias, self.weight, kind, function, self._activate, len(inner))

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
