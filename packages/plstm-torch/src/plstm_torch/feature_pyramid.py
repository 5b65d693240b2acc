"""Feature maps of several strides out of a vision model, as heads for detection and segmentation read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from plstm_torch.models.vision import pLSTMVisionModel


class FeaturePyramid(nn.Module):
    r"""Feature maps of a vision model at several strides, or several maps at one.

    The grid of a pLSTM has one stride, that of its patches, from the first block to the last. Each map takes the
    features after one block, norms them, projects them to `channels`, and resamples them to its stride:

    .. math:: f_s = \mathrm{resample}_{p \to s}(W_s\,\mathrm{norm}_s(x_{b(s)}) + b_s)

    Finer strides than the patches' are interpolated (bilinear), coarser ones are means over the area. So the fine maps
    are smooth: they bring the shape that a head expects, not detail that the patches do not hold. For detail take a
    smaller patch size. With `strides` all alike there is no resampling, and the maps differ in depth alone.

    Args:
        model: a vision model; its head is not used.
        strides: distance of the maps' places in pixels, one for each map.
        channels: width of the maps; None: that of the model, without a projection.
        blocks: number of the block that each map is taken from, negative ones from the end; None: spread evenly over
            the model, the last map from the last block.

    Raises:
        TypeError: `model` is no vision model.
        ValueError: a stride or width that is not positive, or a block that there is not.

    Examples:
        >>> import torch, plstm_config, plstm_torch
        >>> from plstm_torch.feature_pyramid import FeaturePyramid
        >>> model = plstm_torch.build(plstm_config.pLSTMVisionModelConfig(dim=16, num_heads=2, num_blocks=4))
        >>> pyramid = FeaturePyramid(model, channels=8)
        >>> [tuple(level.shape) for level in pyramid(torch.rand(1, 64, 96, 3)).values()]
        [(1, 8, 16, 24), (1, 8, 8, 12), (1, 8, 4, 6), (1, 8, 2, 3)]
    """

    def __init__(
        self,
        model: pLSTMVisionModel,
        strides: Sequence[int] = (4, 8, 16, 32),
        channels: int | None = None,
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(model, pLSTMVisionModel):
            raise TypeError(f"model: expected a pLSTMVisionModel, got {type(model).__name__}")
        if len(strides) == 0 or min(strides) < 1:
            raise ValueError(f"strides: expected at least one number >= 1, got {tuple(strides)}")
        if channels is not None and channels < 1:
            raise ValueError(f"channels: expected None or a number >= 1, got {channels}")
        count = model.config.num_blocks
        if blocks is None:
            blocks = [max(0, -(-count * (level + 1) // len(strides)) - 1) for level in range(len(strides))]
        if len(blocks) != len(strides) or not all(-count <= block < count for block in blocks):
            expected = f"{len(strides)} numbers from {-count} to {count - 1}"
            raise ValueError(f"blocks: expected {expected}, one for each stride, got {tuple(blocks)}")
        width = model.config.dim
        self.model = model
        self.strides, self.blocks = tuple(strides), tuple(block % count for block in blocks)
        self.out_channels = width if channels is None else channels
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in strides)
        self.projections = nn.ModuleList(
            nn.Identity() if channels is None else nn.Linear(width, channels) for _ in strides
        )

    def forward(self, pixels: Float[Tensor, "B height width C"]) -> dict[str, Float[Tensor, "B channels X Y"]]:
        """Compute the maps.

        Args:
            pixels: images as the model takes them, of any size that the patches tile.

        Returns:
            Maps [B, channels, X, Y] by the name of their level, "0" for the first stride; X is the image's height
            divided by the stride, rounded up.

        Raises:
            TypeError: the pixels are integers.
            ValueError: wrong rank or number of channels, or a size that the patches do not tile.
        """
        needed = sorted(set(self.blocks))
        found = self.model.forward_intermediates(
            pixels, needed, stop_early=True, output_fmt="NHWC", intermediates_only=True
        )
        layers = dict(zip(needed, found, strict=True))
        sides = pixels.shape[2:4] if self.model.config.channels_first else pixels.shape[1:3]
        maps: dict[str, Tensor] = {}
        parts: Any = zip(self.strides, self.blocks, self.norms, self.projections, strict=True)
        for level, (stride, block, norm, project) in enumerate(parts):
            grid = project(norm(layers[block].to(norm.weight.dtype))).permute(0, 3, 1, 2)
            maps[str(level)] = _resampled(grid, (-(-sides[0] // stride), -(-sides[1] // stride)))
        return maps


def _resampled(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """A map of another size: interpolated where it grows, averaged where it shrinks."""
    if tuple(grid.shape[2:]) == size:
        return grid
    if size[0] <= grid.shape[2] and size[1] <= grid.shape[3]:
        return functional.adaptive_avg_pool2d(grid, size)
    return functional.interpolate(grid, size=size, mode="bilinear", align_corners=False)
