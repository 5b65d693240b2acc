"""The block that mixes positions at the widened inner width."""

from torch import Tensor, nn

from plstm_config import PreUpProjectionBlockConfig
from plstm_config.checks import Kind
from plstm_torch.blocks.gating import gating_function
from plstm_torch.build import register
from plstm_torch.context import Block, Cache, Context, call, kind_of
from plstm_torch.dtypes import answer, residual
from plstm_torch.layers.linear import Linear


@register(PreUpProjectionBlockConfig)
class PreUpProjectionBlock(Block):
    r"""Widen, mix positions, gate, narrow.

    .. math:: [c, g] = W_{up}\,\mathrm{norm}(x), \qquad
              y = x + W_{down}\,(\mathrm{interaction}(c) \odot \mathrm{silu}(g))

    Without `gated` there is no g; without `skip` no x is added.

    Submodules: `norm`, `upproj`, `interaction_module`, `downproj`.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> block = plstm_torch.build(plstm_config.PreUpProjectionBlockConfig(input_dim=16, projection_scaling=2.0))
        >>> block(torch.rand(2, 10, 16)).shape, block.interaction_module.config.input_dim
        (torch.Size([2, 10, 16]), 64)
    """

    config: PreUpProjectionBlockConfig
    norm: nn.Module
    upproj: Linear
    interaction_module: nn.Module
    downproj: Linear

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        """What the interaction works on."""
        return kind_of(self.interaction_module)

    def _parts(self) -> list[tuple[str, nn.Module]]:
        return [("interaction_module", self.interaction_module)]

    def run(self, x: Tensor, context: Context) -> tuple[Tensor, Cache]:
        """Run the block; see `Block.forward`."""
        carry, gate = self.upproj(self.norm(x)), None
        if self.config.gated:
            carry, gate = carry.chunk(2, dim=-1)
        # autocast narrows the projection, and the layer answers in the dtype that it is asked with
        mixed, cache = call(self.interaction_module, carry.to(self.dtype), context.of("interaction_module"))
        if gate is not None:
            mixed = mixed * gating_function(self.config.gating_function)(gate)
        branch = self.downproj(mixed)
        output = residual(x, self.dtype) + branch if self.config.skip else branch
        return answer(output, x), {"interaction_module": cache}
