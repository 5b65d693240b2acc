"""Cut images into patches and embed them."""

from typing import cast

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from plstm_config import PatchEmbedConfig
from plstm_config.checks import check_pixels
from plstm_torch.build import register
from plstm_torch.module import Module, ParameterGroup


@register(PatchEmbedConfig)
class PatchEmbed(Module):
    r"""Linear embedding of image patches, as a strided convolution.

    .. math:: y_{xy} = b + \sum_{c,i,j} W_{cij}\, p_{c,\,xs+i,\,ys+j}

    The image height becomes the X axis of the grid, the width its Y axis.

    Parameters: `proj.weight` [dim, C, height, width], `proj.bias` [dim].

    Raises:
        ValueError: the config leaves a size open.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> embed = plstm_torch.build(plstm_config.PatchEmbedConfig(dim=8, num_channels=3, patch_size=4))
        >>> embed(torch.rand(2, 32, 20, 3)).shape
        torch.Size([2, 8, 5, 8])
    """

    config: PatchEmbedConfig
    proj: ParameterGroup

    def forward(self, pixels: Float[Tensor, "B height width C"]) -> Float[Tensor, "B X Y D"]:
        """Embed the patches of images of any size that the patches tile.

        Args:
            pixels: images [B, height, width, C], or [B, C, height, width] with `channels_first`; floating point.

        Returns:
            Patch grid [B, X, Y, D].

        Raises:
            TypeError: the pixels are integers.
            ValueError: wrong rank or number of channels, or a size that the patches do not tile.
        """
        check_pixels(pixels, self.config, floating=pixels.is_floating_point())
        if not self.config.channels_first:
            pixels = pixels.permute(0, 3, 1, 2)
        weight, bias = self.proj.weight.to(self.dtype), cast(Tensor, self.proj.bias).to(self.dtype)
        grid = functional.conv2d(pixels.to(self.dtype), weight, bias, stride=self.config.step)
        return grid.permute(0, 2, 3, 1)
