"""Depthwise convolutions before the gates and projections."""

from dataclasses import dataclass, field

from plstm_config.base import ModuleConfig, require


@dataclass(kw_only=True)
class _ConvolutionConfig(ModuleConfig):
    pointwise: bool = True
    bias: bool = True

    def _check(self) -> None:
        require(self.pointwise, "pointwise=False: expected True (depthwise), the only kind there is")
        same = self.output_dim == self.input_dim
        require(same, f"output_dim={self.output_dim}: expected input_dim={self.input_dim}, channels stay apart")


@dataclass(kw_only=True)
class Convolution1DLayerConfig(_ConvolutionConfig):
    """Depthwise convolution along a sequence.

    Attributes:
        kernel_size: positions that an output sees.
        causal: True: itself and those before it. The only choice, since the layers are causal.
    """

    class_name: str = field(init=False, default="Convolution1DLayer")
    causal: bool = True
    kernel_size: int = 4

    def _check(self) -> None:
        super()._check()
        require(self.causal, "causal=False: expected True, sequence layers are causal")
        require(self.kernel_size >= 1, f"kernel_size={self.kernel_size} is not positive")


@dataclass(kw_only=True)
class Convolution2DLayerConfig(_ConvolutionConfig):
    """Depthwise convolution on a grid.

    Attributes:
        kernel_size: positions that an output sees along X and Y.
        causal: False: centred; True: x' <= x and y' <= y only (the research code pads so, whatever its flag says).
    """

    class_name: str = field(init=False, default="Convolution2DLayer")
    causal: bool = False
    kernel_size: tuple[int, int] = (3, 3)

    def _check(self) -> None:
        super()._check()
        require(min(self.kernel_size) >= 1, f"kernel_size={self.kernel_size} is not positive")
