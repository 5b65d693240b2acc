"""The transformer block: the baseline that pLSTM blocks are compared with."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from plstm_config import TransformerBlockConfig
from plstm_torch.blocks.residual_pair import ResidualPair
from plstm_torch.build import register
from plstm_torch.dtypes import torch_dtype
from plstm_torch.layers.linear import Linear


@register(TransformerBlockConfig)
class TransformerBlock(ResidualPair):
    r"""Softmax attention over all positions, then a feed-forward part, each with its residual.

    .. math:: x_2 = x + s_1 W_o\,\mathrm{softmax}(Q K^\top / \sqrt{D/H})\,V, \qquad
              y = x_2 + s_2 W_{down}\,\mathrm{act}(W_{up}\,\mathrm{norm}_2(x_2))

    Positions are all axes between the first and the last; attention is not causal and knows no order of its own.

    Args:
        config: Sizes, number of heads, activation and norm.
    """

    def __init__(self, config: TransformerBlockConfig) -> None:
        super().__init__(config, config.scale)
        self.config = config
        self.scale = self._build_scale()
        dtypes = {"dtype": torch_dtype(config.dtype), "param_dtype": torch_dtype(config.param_dtype)}
        width = config.input_dim
        self.qkv = Linear(
            width,
            3 * width,
            weight_init=config.attn_weight_init,
            bias_init=config.upproj_bias_init if config.bias else None,
            **dtypes,
        )
        self.outproj = Linear(
            width,
            width,
            weight_init=config.out_weight_init,
            bias_init=config.downproj_bias_init if config.bias else None,
            **dtypes,
        )

    def forward(self, x: Float[Tensor, "B *grid D"]) -> Float[Tensor, "B *grid D"]:
        """Run the block.

        Args:
            x: Input [B, T, D] or [B, X, Y, D].

        Returns:
            Output in the shape of x and in the block's dtype.
        """
        x = x.to(self.dtype)
        return self._feed_forward(self._add(x, self._attention(self.norm(x)), self.scale))

    def _attention(self, x: Tensor) -> Tensor:
        positions = x.flatten(1, -2)
        batch, length, width = positions.shape
        shape = (batch, length, 3, self.config.num_heads, width // self.config.num_heads)
        heads = self.qkv(positions).view(shape).transpose(1, 3)
        query, key, value = heads.unbind(2)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.outproj(mixed.transpose(1, 2).reshape(batch, length, width)).view(x.shape)
