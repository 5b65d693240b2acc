"""The vision block: a P-mode and a D-mode block as one pair."""

from torch import Tensor, nn

from plstm_config import pLSTMVisionBlockConfig
from plstm_config.checks import Kind
from plstm_torch.build import register
from plstm_torch.context import Block, Cache, Context, call
from plstm_torch.layers.pointwise import DropPath


@register(pLSTMVisionBlockConfig)
class pLSTMVisionBlock(Block):
    r"""Two blocks in sequence, `block_mode` "PD" or "DP".

    .. math:: y = x + \mathrm{drop\_path}(\mathrm{block}_1(\mathrm{block}_0(x)) - x)

    Directed propagation (P) reaches far along one angle, diffusive distribution (D) spreads over the plane; the pair
    has both. Drop path skips the pair as a whole, in training only.

    Submodules: `block0`, `block1`.

    Source: paper equations 9 and 10 for the modes.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> block = plstm_torch.build(plstm_config.pLSTMVisionBlockConfig(input_dim=16, num_heads=2, block_mode="PD"))
        >>> block(torch.rand(2, 5, 7, 16)).shape, block.block0.interaction_module.config.mode
        (torch.Size([2, 5, 7, 16]), 'P')
    """

    config: pLSTMVisionBlockConfig
    kind: Kind = "grid"
    block0: nn.Module
    block1: nn.Module
    drop_path: DropPath

    def __init__(self, config: pLSTMVisionBlockConfig) -> None:
        super().__init__(config)
        self._drops = config.drop_path_rate > 0.0

    def run(self, x: Tensor, context: Context) -> tuple[Tensor, Cache]:
        """Run both blocks on a grid [B, X, Y, D]; see `Block.forward`."""
        y = x
        for block in (self.block0, self.block1):
            y, _ = call(block, y, context)
        if self.training and self._drops:
            y = x + self.drop_path(y - x)
        return y, {}
