"""The vision block: a P-mode and a D-mode block as one pair."""

from jaxtyping import Float
from torch import Tensor

from plstm_config import DropPathConfig, pLSTMVisionBlockConfig
from plstm_torch.build import build, register
from plstm_torch.module import Module


@register(pLSTMVisionBlockConfig)
class pLSTMVisionBlock(Module):
    r"""Two blocks in sequence, `block_mode` "PD" or "DP".

    .. math:: y = x + \mathrm{drop\_path}(\mathrm{block}_1(\mathrm{block}_0(x)) - x)

    Directed propagation (P) reaches far along one angle, diffusive distribution (D) spreads over the plane; the pair
    has both. Drop path skips the pair as a whole, in training only.

    Args:
        config: Sizes, order of the modes and both blocks.

    Source: paper equations 9 and 10 for the modes.
    """

    def __init__(self, config: pLSTMVisionBlockConfig) -> None:
        super().__init__()
        self.config = config
        self.block0 = build(config.block0)
        self.block1 = build(config.block1)
        self.drop_path = build(DropPathConfig(drop_prob=config.drop_path_rate))

    def forward(self, x: Float[Tensor, "B X Y D"]) -> Float[Tensor, "B X Y D"]:
        """Run both blocks.

        Args:
            x: Grid [B, X, Y, D] of any size.

        Returns:
            Output in the shape of x and in the blocks' dtype.
        """
        y = self.block1(self.block0(x))
        if self.training and self.config.drop_path_rate > 0.0:
            x = x.to(y.dtype)
            y = x + self.drop_path(y - x)
        return y
