"""Positional embedding of a patch grid that follows the grid's size."""

from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from plstm_config import PosEmbed2DConfig
from plstm_config.checks import check_grid
from plstm_config.weights import accepts_shape
from plstm_torch.build import register
from plstm_torch.module import Module


def resize_pos_embed(embed: Float[Tensor, "1 X Y D"], grid: tuple[int, int]) -> Float[Tensor, "1 X2 Y2 D"]:
    """Resample a positional embedding to another grid, bicubic and without antialiasing.

    Args:
        embed: embedding [1, X, Y, D], any floating dtype; resampled in float32 or higher.
        grid: new sizes (X2, Y2).

    Returns:
        Embedding [1, X2, Y2, D] in the dtype of `embed`; `embed` itself if the grid is the same.
    """
    # sizes that may vary in an exported program are not compared: resampled to its own grid the embedding is the same
    if all(isinstance(size, int) for size in grid) and tuple(embed.shape[1:3]) == tuple(grid):
        return embed
    wide = embed.permute(0, 3, 1, 2).to(torch.promote_types(embed.dtype, torch.float32))
    resized = functional.interpolate(wide, size=tuple(grid), mode="bicubic", align_corners=False, antialias=False)
    return resized.permute(0, 2, 3, 1).to(embed.dtype)


class GridOfTiles(Protocol):
    """Where a tile lies in a grid that is spread over processes, see `plstm_torch.parallel`."""

    def whole_grid(self, x: Tensor) -> tuple[int, int]:
        """The sizes of the grid that x [B, X, Y, D] is a tile of."""

    def tile(self, whole: Tensor, x: Tensor) -> Tensor:
        """The part of a whole grid [B, X2, Y2, D] where x lies."""


@register(PosEmbed2DConfig)
class PosEmbed2D(Module):
    r"""Add one embedding per grid position.

    .. math:: y_{xy} = x_{xy} + e_{xy}

    With `allow_interpolation` a grid of another size, and weights that come from another size, are met by bicubic
    interpolation without antialiasing; without it both are errors. Without `learnable` the embedding is fixed.

    Parameters: `embed` [1, X, Y, dim].

    Raises:
        ValueError: the config leaves grid or width open.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> embed = plstm_torch.build(plstm_config.PosEmbed2DConfig(dim=8, seqlens=(4, 4)))
        >>> embed(torch.rand(2, 6, 3, 8)).shape  # resampled to the grid that comes
        torch.Size([2, 6, 3, 8])
    """

    config: PosEmbed2DConfig
    spread: GridOfTiles | None = None
    embed: nn.Parameter

    def forward(self, x: Float[Tensor, "B X Y D"]) -> Float[Tensor, "B X Y D"]:
        """Add the embedding, resampled if the grid is another one.

        Args:
            x: patch grid [B, X, Y, D].

        Returns:
            The grid plus the embedding, in the config's dtype.

        Raises:
            ValueError: another grid although `allow_interpolation` is False.
        """
        grid = (x.shape[1], x.shape[2]) if self.spread is None else self.spread.whole_grid(x)
        check_grid(grid, self.config)
        embed = resize_pos_embed(self.embed, grid)
        if self.spread is not None:
            embed = self.spread.tile(embed, x)
        return x.to(self.dtype) + embed.to(self.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        stored = state_dict.get(prefix + "embed")
        if isinstance(stored, Tensor) and accepts_shape(self.config, tuple(stored.shape)):
            state_dict[prefix + "embed"] = resize_pos_embed(stored, (self.embed.shape[1], self.embed.shape[2]))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
