"""Cut images into patches and embed them."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from plstm_config import PatchEmbedConfig
from plstm_torch.build import register
from plstm_torch.dtypes import torch_dtype
from plstm_torch.initializers import initialize_
from plstm_torch.module import Module, empty_parameter


def as_pair(value: int | Sequence[int]) -> tuple[int, int]:
    """Expand one size to (height, width)."""
    if isinstance(value, int):
        return value, value
    height, width = value
    return height, width


class _PatchProjection(Module):
    """The strided convolution; a module of its own only for its parameters' names."""

    def __init__(self, config: PatchEmbedConfig) -> None:
        super().__init__()
        for name in ("dim", "num_channels"):
            if getattr(config, name) < 1:
                raise ValueError(f"{name}: expected an integer >= 1, got {getattr(config, name)}")
        self.dtype = torch_dtype(config.dtype)
        self.weight_init = config.weight_init
        self.bias_init = config.bias_init
        self.patch_size = as_pair(config.patch_size)
        self.stride = self.patch_size if config.stride is None else as_pair(config.stride)
        if min(*self.patch_size, *self.stride) < 1:
            raise ValueError(f"patch_size, stride: expected sizes >= 1, got {self.patch_size} and {self.stride}")
        param_dtype = torch_dtype(config.param_dtype)
        self.weight = empty_parameter((config.dim, config.num_channels, *self.patch_size), param_dtype)
        self.bias = empty_parameter((config.dim,), param_dtype)
        self._reset_own_parameters()

    def _reset_own_parameters(self) -> None:
        initialize_(self.weight, self.weight_init)
        initialize_(self.bias, self.bias_init)

    def forward(self, pixels: Float[Tensor, "B C height width"]) -> Float[Tensor, "B D X Y"]:
        return functional.conv2d(
            pixels.to(self.dtype), self.weight.to(self.dtype), self.bias.to(self.dtype), stride=self.stride
        )


@register(PatchEmbedConfig)
class PatchEmbed(Module):
    r"""Linear embedding of image patches, as a strided convolution.

    .. math:: y_{xy} = b + \sum_{c,i,j} W_{cij}\, p_{c,\,xs+i,\,ys+j}

    The image height becomes the X axis of the grid, the width its Y axis.

    Args:
        config: Patch size, stride, number of channels and embedding width.

    Raises:
        ValueError: the config leaves one of them open.
    """

    def __init__(self, config: PatchEmbedConfig) -> None:
        super().__init__()
        self.config = config
        self.proj = _PatchProjection(config)

    def forward(self, pixels: Float[Tensor, "B height width C"]) -> Float[Tensor, "B X Y D"]:
        """Embed the patches of images of any size that the patches tile.

        Args:
            pixels: Images [B, height, width, C], or [B, C, height, width] with `channels_first`; floating point.

        Returns:
            Patch grid [B, X, Y, D].

        Raises:
            TypeError: the pixels are integers.
            ValueError: wrong rank or number of channels, or a size that the patches do not tile.
        """
        if not self.config.channels_first and pixels.ndim == 4:
            pixels = pixels.permute(0, 3, 1, 2)
        self._check(pixels)
        return self.proj(pixels).permute(0, 2, 3, 1)

    def _check(self, pixels: Tensor) -> None:
        layout = "[B, C, height, width]" if self.config.channels_first else "[B, height, width, C]"
        if pixels.ndim != 4:
            raise ValueError(f"pixels: expected 4 axes {layout}, got shape {tuple(pixels.shape)}")
        if not pixels.is_floating_point():
            raise TypeError(f"pixels: expected floating point values, got {pixels.dtype}; convert and scale first")
        if pixels.shape[1] != self.config.num_channels:
            raise ValueError(
                f"pixels: expected {self.config.num_channels} channels in {layout}, got {pixels.shape[1]} channels"
            )
        for name, size, patch, stride in zip(
            ("height", "width"), pixels.shape[2:], self.proj.patch_size, self.proj.stride, strict=True
        ):
            if size < patch or (size - patch) % stride:
                raise ValueError(
                    f"pixels: expected a {name} that patches of {patch} at stride {stride} tile exactly, got {size}"
                )
