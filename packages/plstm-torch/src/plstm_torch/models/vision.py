"""The vision model: patches, positional embedding, blocks, pooling, head."""

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor, nn

from plstm_config import pLSTMVisionModelConfig
from plstm_config.checks import WITH_TIME
from plstm_torch.blocks.block_stack import BlockStack
from plstm_torch.build import register
from plstm_torch.context import Context
from plstm_torch.dtypes import cat
from plstm_torch.layers.linear import Linear
from plstm_torch.models.patch_embed import PatchEmbed
from plstm_torch.models.pos_embed import PosEmbed2D
from plstm_torch.models.vision_interface import VisionInterface


@register(pLSTMVisionModelConfig)
class pLSTMVisionModel(VisionInterface):
    """Image classifier or feature extractor on a grid of patches.

    Images of every size that the patches tile are welcome: the positional embedding interpolates. X is the image
    height and Y its width. Blocks around 1D layers see the patches row by row as one sequence.

    Poolings: "corners" concatenates the four corner patches, "center" takes [sx//2, sy//2], "mean" and "sum" run over
    all patches, "cls" reads a learned token that stands before the patch sequence (blocks on sequences only; useful
    with attention and bidirectional layers, since a causal one shows the first position nothing else), "to_image"
    [B, dim, sx, sy] and "features" [B, sx, sy, dim] return the normed grid without a head.

    It has the interface of timm's models, see `VisionInterface`.

    Submodules: `patch_embed`, `pos_embed`, `block_stack`, `norm`, `head`; parameters: `cls_token` [dim].

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> config = plstm_config.preset("plstm_vis_tiny", num_classes=10, num_blocks=2)
        >>> model = plstm_torch.build(config)
        >>> model(torch.rand(1, 64, 96, 3)).shape  # any resolution that the patches tile
        torch.Size([1, 10])
    """

    config: pLSTMVisionModelConfig
    patch_embed: PatchEmbed
    pos_embed: PosEmbed2D | None
    block_stack: BlockStack
    norm: nn.Module
    head: Linear | None
    logit_softcap: nn.Module | None
    cls_token: nn.Parameter | None

    def features(
        self, pixels: Float[Tensor, "B height width C"]
    ) -> tuple[Float[Tensor, "B X Y D"], Float[Tensor, "B D"] | None]:
        """Compute the normed patch features.

        Args:
            pixels: images as in `forward`.

        Returns:
            Grid [B, X, Y, dim] and, with pooling "cls", the token [B, dim].

        Raises:
            TypeError: the pixels are integers.
            ValueError: wrong rank or number of channels, or a size that the patches do not tile.
        """
        x, grid = self._embed(pixels)
        return self._as_grid(self.norm(self.block_stack(x)), grid)

    def encode(
        self, pixels: Float[Tensor, "B height width C"]
    ) -> Iterator[tuple[Float[Tensor, "B X Y D"], Float[Tensor, "B D"] | None]]:
        """Compute the features before the first block and after each, none of them normed, as the caller asks for them.

        Args:
            pixels: images as in `forward`.

        Yields:
            Grid [B, X, Y, dim] and, with pooling "cls", the token [B, dim].

        Raises:
            TypeError: the pixels are integers.
            ValueError: wrong rank or number of channels, or a size that the patches do not tile.
        """
        x, grid = self._embed(pixels)
        yield self._as_grid(x, grid)
        for _, output, _ in self.block_stack.iterate(x, Context()):
            yield self._as_grid(output, grid)

    def forward(self, pixels: Float[Tensor, "B height width C"]) -> Tensor:
        """Classify images, or compute their features.

        Args:
            pixels: images [B, height, width, channels], or [B, channels, height, width] with `channels_first`;
                floating point.

        Returns:
            Logits [B, classes], or without a head what the pooling gives: with "to_image" and "features" the grid.

        Raises:
            TypeError: the pixels are integers.
            ValueError: wrong rank or number of channels, or a size that the patches do not tile.
        """
        return self._classify(*self.features(pixels))

    def _embed(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """What the first block reads [B, X, Y, D] or [B, T, D], and the sizes of the grid."""
        x = self.patch_embed(pixels)
        if self.pos_embed is not None:
            x = self.pos_embed(x)
        grid = (x.shape[1], x.shape[2])
        if self.config.pooling != "cls" and self.block_stack.kind not in WITH_TIME:
            return x, grid
        x = x.flatten(1, 2)
        if self.cls_token is not None:
            token = self.cls_token.to(x.dtype).expand(x.shape[0], 1, -1)
            x = cat([token, x], dim=1)
        return x, grid

    def _as_grid(self, x: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """Grid and token of what a block reads or returns."""
        if x.ndim == 4:
            return x, None
        if self.cls_token is None:
            return x.unflatten(1, grid), None
        return x[:, 1:].unflatten(1, grid), x[:, 0]

    def _classify(self, grid: Tensor, token: Tensor | None) -> Tensor:
        pooled = self._pool(grid, token)
        if self.head is None:
            return pooled
        logits = self.head(pooled)
        return logits if self.logit_softcap is None else self.logit_softcap(logits)
