"""The block that mixes positions first and widens afterwards."""

from torch import Tensor, nn

from plstm_config import PostUpProjectionBlockConfig
from plstm_config.checks import Kind
from plstm_torch.blocks.residual_pair import ResidualPair
from plstm_torch.build import register
from plstm_torch.context import Cache, Context, call, kind_of
from plstm_torch.dtypes import answer, residual
from plstm_torch.layers.graph_indices import sample_of_nodes
from plstm_torch.layers.pointwise import ScaleLayer


@register(PostUpProjectionBlockConfig)
class PostUpProjectionBlock(ResidualPair):
    r"""Mix positions at the input width, then a feed-forward part, each with its residual.

    .. math:: x_2 = x + \mathrm{interaction}(\mathrm{norm}(x)), \qquad
              y = x_2 + W_{down}\,\mathrm{act}(W_{up}\,\mathrm{norm}_2(x_2))

    Gated: `upproj` is twice as wide and its first half is multiplied by act of its second half.
    `use_scale` adds a learned scale per channel to each branch, `drop_path_rate` drops branches in training.
    Without `skip` both branches run in sequence: no residual, no scale, no drop path.

    Submodules: `norm`, `norm2`, `upproj`, `downproj`, `interaction_module`, and with scales `scale1`, `scale2`.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> block = plstm_torch.build(plstm_config.PostUpProjectionBlockConfig(input_dim=16))
        >>> output, cache = block(torch.rand(2, 10, 16), return_cache=True)
        >>> block.step(torch.rand(2, 16), cache)[0].shape  # the eleventh step
        torch.Size([2, 16])
    """

    config: PostUpProjectionBlockConfig
    scale1: ScaleLayer | None
    interaction_module: nn.Module

    @property
    def kind(self) -> Kind:  # type: ignore[override]
        """What the interaction works on."""
        return kind_of(self.interaction_module)

    def _parts(self) -> list[tuple[str, nn.Module]]:
        return [("interaction_module", self.interaction_module)]

    def run(self, x: Tensor, context: Context) -> tuple[Tensor, Cache]:
        """Run the block; see `Block.forward`."""
        inner = residual(x, self.dtype)
        mixed, cache = call(self.interaction_module, self.norm(inner), context.of("interaction_module"))
        samples = None if context.graph is None else sample_of_nodes(context.graph, x)
        inner = self._add(inner, mixed, self.scale1, samples)
        return answer(self._feed_forward(inner, samples), x), {"interaction_module": cache}
