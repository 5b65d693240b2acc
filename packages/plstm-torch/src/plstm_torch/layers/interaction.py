"""What the pLSTM layers on sequences and on grids share around the recurrence."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from plstm_config.interaction import InteractionLayerConfig
from plstm_torch.dtypes import answer
from plstm_torch.module import Module


class InteractionLayer(Module):
    """Query, key, value and direct before the recurrence; norm, projection and passthrough behind it.

    The convolution is left to the layers: it has not the same name in all of them.
    """

    config: InteractionLayerConfig
    query: nn.Module
    key: nn.Module | None
    value_: nn.Module
    direct: nn.Module
    mhnorm: nn.Module
    outprojection: nn.Module | None
    passthrough: nn.Module | None

    def __init__(self, config: InteractionLayerConfig) -> None:
        super().__init__(config)
        self.num_heads = config.num_heads

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def _pick(self, letter: str, x: Tensor, convolved: Tensor) -> Tensor:
        """The input of one part: the convolved features if `convolution_inputs` names its letter."""
        return convolved if letter in self.config.convolution_inputs else x

    def _query_key_value(self, x: Tensor, convolved: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query = self.query(self._pick("Q", x, convolved))
        key = query if self.key is None else self.key(self._pick("K", x, convolved))
        return query, key, self.value_(self._pick("V", x, convolved))

    def _project(self, heads: Tensor, x: Tensor, convolved: Tensor) -> Tensor:
        """From the heads' normalised outputs [B, H, ..., DV * JO] to the layer's output [B, ..., D], in x's dtype."""
        output = heads.movedim(1, -2).flatten(-2).to(self.dtype)
        if self.outprojection is not None:
            output = self.outprojection(output)
        if self.passthrough is not None:
            output = output + self.passthrough(self._pick("P", x, convolved))
        return answer(output, x)


def normalize_heads(norm: nn.Module, heads: Float[Tensor, "B H *grid W"]) -> Float[Tensor, "B H *grid W"]:
    """Apply a norm of any kind to the heads' outputs.

    Args:
        norm: a multi-head norm with the heads on axis 1, or a norm over all heads' features together.
        heads: outputs [B, H, ..., W].

    Returns:
        Normalised outputs of the same shape.
    """
    config = norm.config
    over_all_heads = getattr(config, "axis", None) is None and getattr(config, "input_dim", None) is not None
    if not over_all_heads:
        return norm(heads)
    features = norm(heads.movedim(1, -2).flatten(-2))
    return features.unflatten(-1, (heads.shape[1], heads.shape[-1])).movedim(-2, 1)


def merge_heads(tensor: Float[Tensor, "..."], grid_axes: int) -> Float[Tensor, "..."]:
    """Move the heads next to the batch and merge the two.

    Args:
        tensor: [B, grid..., H, ...].
        grid_axes: number of axes between batch and heads.

    Returns:
        [B * H, grid..., ...].
    """
    return tensor.movedim(1 + grid_axes, 1).flatten(0, 1)
