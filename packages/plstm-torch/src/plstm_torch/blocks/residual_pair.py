"""What the post-up-projection block and the transformer block share: two residual branches, the second feed-forward."""

from jaxtyping import Float
from torch import Tensor, nn

from plstm_config import DropPathConfig, PostUpProjectionBlockConfig, ScaleLayerConfig, TransformerBlockConfig
from plstm_torch.blocks.gating import gating_function
from plstm_torch.build import build
from plstm_torch.dtypes import torch_dtype
from plstm_torch.layers.linear import Linear
from plstm_torch.module import Module


class ResidualPair(Module):
    r"""Norms, feed-forward part, scales and drop path of a block with two branches.

    .. math:: x_2 = x + s_1\,\mathrm{mix}(\mathrm{norm}(x)), \qquad
              y = x_2 + s_2\,W_{down}\,\mathrm{act}(W_{up}\,\mathrm{norm}_2(x_2))

    Subclasses add the part that mixes positions and its scale.

    Args:
        config: The block's config.
        scale: Config of the two scale layers, or None for no scales.
    """

    def __init__(
        self, config: PostUpProjectionBlockConfig | TransformerBlockConfig, scale: ScaleLayerConfig | None
    ) -> None:
        super().__init__()
        self.dtype = torch_dtype(config.dtype)
        inner = config.inner_dim
        dtypes = {"dtype": torch_dtype(config.dtype), "param_dtype": torch_dtype(config.param_dtype)}
        self.norm = build(config.norm)
        self.norm2 = build(config.norm)
        self.upproj = Linear(
            config.input_dim,
            2 * inner if config.gated else inner,
            weight_init=config.upproj_weight_init,
            bias_init=config.upproj_bias_init if config.bias else None,
            **dtypes,
        )
        self.downproj = Linear(
            inner,
            config.input_dim,
            weight_init=config.downproj_weight_init,
            bias_init=config.downproj_bias_init if config.bias else None,
            **dtypes,
        )
        # without the skip connection scales would be parameters that no output depends on
        self._scale_config = scale if config.skip else None
        self.scale2 = self._build_scale()
        self.drop_path = build(DropPathConfig(drop_prob=config.drop_path_rate))
        self._gated = config.gated
        self._skip = config.skip
        self._activation = gating_function(config.gating_function)

    def _build_scale(self) -> nn.Module | None:
        return None if self._scale_config is None else build(self._scale_config)

    def _add(self, x: Tensor, branch: Tensor, scale: nn.Module | None, samples: Tensor | None = None) -> Tensor:
        """Close the residual connection around one branch, if there is one; `samples` as in `DropPath`."""
        if not self._skip:
            return branch
        if scale is not None:
            branch = scale(branch)
        return x + self.drop_path(branch, samples)

    def _feed_forward(self, x: Float[Tensor, "*batch D"], samples: Tensor | None = None) -> Float[Tensor, "*batch D"]:
        """Run the second branch with its residual connection."""
        wide = self.upproj(self.norm2(x))
        if self._gated:
            carry, gate = wide.chunk(2, dim=-1)
            wide = carry * self._activation(gate)
        else:
            wide = self._activation(wide)
        return self._add(x, self.downproj(wide), self.scale2, samples)
