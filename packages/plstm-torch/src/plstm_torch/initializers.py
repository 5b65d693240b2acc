"""Initialisers: one in-place function for all initialiser configs.

Axes and fans refer to the tensor as given, which is the canonical parameter layout that all backends share.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from plstm_config import (
    ConstantInitConfig,
    DiagonalInitConfig,
    LinspaceInitConfig,
    LogspaceInitConfig,
    NormalInitConfig,
    OnesInitConfig,
    SmallInitConfig,
    TruncatedNormalInitConfig,
    UniformInitConfig,
    WangInitConfig,
    XavierInitConfig,
    ZerosInitConfig,
)
from plstm_config.initializers import axes_of
from plstm_config.options import of_instance
from plstm_torch.dtypes import accumulation_dtype


def _constant(tensor: Tensor, config: ConstantInitConfig) -> Tensor:
    return torch.full_like(tensor, config.value)


def _zeros(tensor: Tensor, config: ZerosInitConfig) -> Tensor:
    return torch.zeros_like(tensor)


def _ones(tensor: Tensor, config: OnesInitConfig) -> Tensor:
    return torch.ones_like(tensor)


def _along(values: Tensor, tensor: Tensor, axis: int) -> Tensor:
    """Lay a vector along one axis of the tensor and repeat it over the others."""
    shape = [1] * tensor.ndim
    shape[axis] = tensor.shape[axis]
    return values.view(shape).expand(tensor.shape)


def _linspace(tensor: Tensor, config: LinspaceInitConfig) -> Tensor:
    size = tensor.shape[axes_of(config.axis, tensor.ndim)[0]]
    values = torch.linspace(config.low, config.high, size, dtype=tensor.dtype, device=tensor.device)
    return _along(values, tensor, config.axis)


def _logspace(tensor: Tensor, config: LogspaceInitConfig) -> Tensor:
    size = tensor.shape[axes_of(config.axis, tensor.ndim)[0]]
    values = torch.logspace(config.low, config.high, size, base=config.base, dtype=tensor.dtype, device=tensor.device)
    return _along(values, tensor, config.axis)


def _normal(tensor: Tensor, config: NormalInitConfig) -> Tensor:
    return torch.randn_like(tensor) * config.stddev + config.mean


def _uniform(tensor: Tensor, config: UniformInitConfig) -> Tensor:
    return tensor.uniform_(config.low, config.high)


def _truncated_normal(tensor: Tensor, config: TruncatedNormalInitConfig) -> Tensor:
    if config.stddev == 0.0:
        return torch.full_like(tensor, min(max(config.mean, config.lower), config.upper))
    sign, first, last, first_share, last_share = config.tail()
    work = torch.float32 if tensor.device.type == "mps" else torch.float64
    share = first_share + (last_share - first_share) * torch.rand(tensor.shape, dtype=work, device=tensor.device)
    return torch.special.ndtri(share).clamp(first, last) * (sign * config.stddev) + config.mean


def _diagonal(tensor: Tensor, config: DiagonalInitConfig) -> Tensor:
    return torch.from_numpy(config.array(tensor.shape)).to(tensor)


def _scaled_normal(tensor: Tensor, config: WangInitConfig | XavierInitConfig | SmallInitConfig) -> Tensor:
    return torch.randn_like(tensor) * config.spread(tensor.shape)


_INITIALIZERS: dict[type, Callable[[Tensor, Any], Tensor]] = {
    ConstantInitConfig: _constant,
    ZerosInitConfig: _zeros,
    OnesInitConfig: _ones,
    LinspaceInitConfig: _linspace,
    LogspaceInitConfig: _logspace,
    NormalInitConfig: _normal,
    UniformInitConfig: _uniform,
    TruncatedNormalInitConfig: _truncated_normal,
    DiagonalInitConfig: _diagonal,
    WangInitConfig: _scaled_normal,
    XavierInitConfig: _scaled_normal,
    SmallInitConfig: _scaled_normal,
}


@torch.no_grad()
def initialize_(tensor: Float[Tensor, "..."], config: object) -> Float[Tensor, "..."]:
    """Fill a tensor in place as an initialiser config says.

    * constant, zeros, ones: one value everywhere.
    * linspace, logspace: `low..high` (or `base ** low..high`) along `axis`, repeated over the other axes.
    * uniform: between `low` and `high`. Normal: `mean + stddev z`. Truncated normal: the same distribution,
      conditioned on values between `lower` and `upper`.
    * diagonal: the identity of the smaller of the in and the out size, tiled to in x out, times `value`, repeated over
      the axes that are neither.
    * Wang: normal with std `2 mup / sqrt(fan) / num_blocks`. Xavier: `mup sqrt(2 / (fan_in + fan_out))`. Small:
      `mup / sqrt(2.5 fan)`. A fan is the size along the named axis.

    Args:
        tensor: what to fill, of any shape and floating dtype. Random numbers are drawn from torch's global state in at
            least float32, so that a seed gives the same weights in every narrower dtype.
        config: one of the initialiser configs of `plstm_config`.

    Returns:
        The same tensor.

    Raises:
        TypeError: if the config is no initialiser config; the message lists those that are.
        ValueError: if the config names an axis that the tensor does not have.

    Examples:
        >>> import plstm_config, torch
        >>> from plstm_torch.initializers import initialize_
        >>> initialize_(torch.empty(2, 3), plstm_config.LinspaceInitConfig(low=0.0, high=1.0, axis=1))
        tensor([[0.0000, 0.5000, 1.0000],
                [0.0000, 0.5000, 1.0000]])
    """
    initializer = of_instance("config", config, _INITIALIZERS)
    if tensor.numel() == 0:
        return tensor
    draft = torch.empty(tensor.shape, dtype=accumulation_dtype(tensor.dtype), device=tensor.device)
    return tensor.copy_(initializer(draft, config))
