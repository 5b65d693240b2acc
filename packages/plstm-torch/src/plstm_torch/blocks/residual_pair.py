"""What the post-up-projection block and the transformer block share: two residual branches, the second feed-forward."""

from jaxtyping import Float
from torch import Tensor, nn

from plstm_config.blocks import ResidualPairConfig
from plstm_torch.blocks.gating import gating_function
from plstm_torch.context import Block
from plstm_torch.layers.linear import Linear
from plstm_torch.layers.pointwise import DropPath, ScaleLayer


class ResidualPair(Block):
    r"""Norms, feed-forward part, scales and drop path of a block with two branches.

    .. math:: x_2 = x + s_1\,\mathrm{mix}(\mathrm{norm}(x)), \qquad
              y = x_2 + s_2\,W_{down}\,\mathrm{act}(W_{up}\,\mathrm{norm}_2(x_2))

    Subclasses add the part that mixes positions and its scale.
    """

    config: ResidualPairConfig
    norm: nn.Module
    norm2: nn.Module
    upproj: Linear
    downproj: Linear
    scale2: ScaleLayer | None
    drop_path: DropPath

    def _add(self, x: Tensor, branch: Tensor, scale: nn.Module | None, samples: Tensor | None = None) -> Tensor:
        """Close the residual connection around one branch, if there is one; `samples` as in `DropPath`."""
        if not self.config.skip:
            return branch
        if scale is not None:
            branch = scale(branch)
        return x + self.drop_path(branch, samples)

    def _feed_forward(self, x: Float[Tensor, "*batch D"], samples: Tensor | None = None) -> Float[Tensor, "*batch D"]:
        """Run the second branch with its residual connection."""
        wide, activation = self.upproj(self.norm2(x)), gating_function(self.config.gating_function)
        if self.config.gated:
            carry, gate = wide.chunk(2, dim=-1)
            wide = carry * activation(gate)
        else:
            wide = activation(wide)
        return self._add(x, self.downproj(wide), self.scale2, samples)
