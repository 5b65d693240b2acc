"""Depthwise convolutions before the gates and projections."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import field
from typing import cast

from plstm_config.base import ModuleConfig, frozen, require
from plstm_config.initializers import InitConfig, UniformInitConfig
from plstm_config.parameters import Child, Parameter, Weights


@frozen
class ConvolutionLayerConfig(ModuleConfig, ABC):
    """What the depthwise convolutions share: every channel has a kernel of its own.

    Attributes:
        bias: whether a bias is added.
        weight_init: none: uniform between -k**-0.5 and k**-0.5, with k positions in a kernel.
        bias_init: none: the same.
    """

    bias: bool = True
    weight_init: InitConfig | None = None
    bias_init: InitConfig | None = None

    @property
    @abstractmethod
    def kernel(self) -> dict[str, int]:
        """Size of the kernel along each axis."""

    def children(self) -> dict[str, Child]:
        """`_conv`: `weight` [D, 1, kernel...] and, with `bias`, `bias` [D]."""
        kernel = self.kernel
        shape, axes = (self.input_dim, 1, *kernel.values()), ("D", "1", *kernel)
        require(self.input_dim >= 1, f"input_dim: expected an integer >= 1, got {self.input_dim}")
        weight = Parameter(shape, axes, cast(InitConfig, self.weight_init), self.param_dtype)
        bias_init = cast(InitConfig, self.bias_init)
        bias = Parameter(shape[:1], axes[:1], bias_init, self.param_dtype, decay=False)
        return {"_conv": Weights({"weight": weight, "bias": bias if self.bias else None})}

    def _complete(self) -> None:
        super()._complete()
        sizes = tuple(self.kernel.values())
        require(min(sizes) >= 1, f"kernel_size: expected sizes >= 1, got {sizes if len(sizes) > 1 else sizes[0]}")
        bound = math.prod(sizes) ** -0.5
        self._derive("weight_init", UniformInitConfig(low=-bound, high=bound))
        self._derive("bias_init", UniformInitConfig(low=-bound, high=bound))

    def _check(self) -> None:
        same = self.output_dim == self.input_dim
        require(same, f"output_dim: expected input_dim={self.input_dim}, channels stay apart, got {self.output_dim}")


@frozen
class Convolution1DLayerConfig(ConvolutionLayerConfig):
    """Depthwise convolution along a sequence.

    Attributes:
        kernel_size: positions that an output sees.
        causal: an output sees itself and the positions before it; otherwise it is centred, as in bidirectional layers.
    """

    class_name: str = field(init=False, default="Convolution1DLayer")
    kernel_size: int = 4
    causal: bool = True

    @property
    def kernel(self) -> dict[str, int]:
        """Size of the kernel along T."""
        return {"T": self.kernel_size}


@frozen
class Convolution2DLayerConfig(ConvolutionLayerConfig):
    """Depthwise convolution on a grid.

    Attributes:
        kernel_size: positions that an output sees along X and Y.
        causal: false: centred; True: x' <= x and y' <= y only (the research code pads so, whatever its flag says).
    """

    class_name: str = field(init=False, default="Convolution2DLayer")
    causal: bool = False
    kernel_size: tuple[int, int] = (3, 3)

    @property
    def kernel(self) -> dict[str, int]:
        """Size of the kernel along X and Y."""
        return dict(zip("XY", self.kernel_size, strict=True))
