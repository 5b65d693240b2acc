"""The transformer block: the baseline that pLSTM blocks are compared with."""

from torch import Tensor
from torch.nn import functional

from plstm_config import TransformerBlockConfig
from plstm_config.checks import Kind
from plstm_torch.blocks.residual_pair import ResidualPair
from plstm_torch.build import register
from plstm_torch.context import Cache, Context
from plstm_torch.dtypes import answer, residual
from plstm_torch.layers.linear import Linear
from plstm_torch.layers.pointwise import ScaleLayer


@register(TransformerBlockConfig)
class TransformerBlock(ResidualPair):
    r"""Softmax attention over all positions, then a feed-forward part, each with its residual.

    .. math:: x_2 = x + s_1 W_o\,\mathrm{softmax}(Q K^\top / \sqrt{D/H})\,V, \qquad
              y = x_2 + s_2 W_{down}\,\mathrm{act}(W_{up}\,\mathrm{norm}_2(x_2))

    Positions are all axes between the first and the last; attention is not causal and knows no order of its own.

    Submodules: `norm`, `norm2`, `qkv`, `outproj`, `upproj`, `downproj`, `scale`, `scale2`.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> block = plstm_torch.build(plstm_config.TransformerBlockConfig(input_dim=16, num_heads=4))
        >>> block(torch.rand(2, 10, 16)).shape
        torch.Size([2, 10, 16])
    """

    config: TransformerBlockConfig
    kind: Kind = "any"
    scale: ScaleLayer | None
    qkv: Linear
    outproj: Linear

    def run(self, x: Tensor, context: Context) -> tuple[Tensor, Cache]:
        """Run the block on [B, T, D] or [B, X, Y, D]; see `Block.forward`."""
        inner = residual(x, self.dtype)
        inner = self._add(inner, self._attention(self.norm(inner)), self.scale)
        return answer(self._feed_forward(inner), x), {}

    def _attention(self, x: Tensor) -> Tensor:
        positions = x.flatten(1, -2)
        batch, length, width = positions.shape
        shape = (batch, length, 3, self.config.num_heads, width // self.config.num_heads)
        heads = self.qkv(positions).view(shape).transpose(1, 3)
        query, key, value = heads.unbind(2)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.outproj(mixed.transpose(1, 2).reshape(batch, length, width)).view(x.shape)
