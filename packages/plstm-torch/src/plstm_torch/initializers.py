"""Initialisers: one in-place function for all initialiser configs.

Axes and fans refer to the tensor as given, which is the canonical parameter layout that all backends share.
"""

import math
from collections.abc import Callable, Sequence
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
    size = _size(tensor, config.axis)
    values = torch.linspace(config.low, config.high, size, dtype=tensor.dtype, device=tensor.device)
    return _along(values, tensor, config.axis)


def _logspace(tensor: Tensor, config: LogspaceInitConfig) -> Tensor:
    size = _size(tensor, config.axis)
    values = torch.logspace(config.low, config.high, size, base=config.base, dtype=tensor.dtype, device=tensor.device)
    return _along(values, tensor, config.axis)


def _normal(tensor: Tensor, config: NormalInitConfig) -> Tensor:
    return torch.randn_like(tensor) * config.stddev + config.mean


def _uniform(tensor: Tensor, config: UniformInitConfig) -> Tensor:
    return tensor.uniform_(config.low, config.high)


def _truncated_normal(tensor: Tensor, config: TruncatedNormalInitConfig) -> Tensor:
    if config.stddev == 0.0:
        return torch.full_like(tensor, min(max(config.mean, config.lower), config.upper))
    low, high = ((bound - config.mean) / config.stddev for bound in (config.lower, config.upper))
    # The quantile function resolves the lower tail only, so an interval in the upper half is mirrored.
    sign = -1.0 if low + high > 0.0 else 1.0
    first, last = sorted((sign * low, sign * high))
    first_share, last_share = (0.5 * math.erfc(-bound / math.sqrt(2.0)) for bound in (first, last))
    work = torch.float32 if tensor.device.type == "mps" else torch.float64
    share = first_share + (last_share - first_share) * torch.rand(tensor.shape, dtype=work, device=tensor.device)
    return torch.special.ndtri(share).clamp(first, last) * (sign * config.stddev) + config.mean


def _axes(axes: int | Sequence[int], rank: int) -> list[int]:
    given = [axes] if isinstance(axes, int) else list(axes)
    for axis in given:
        if not -rank <= axis < rank:
            raise ValueError(f"axis must lie in [-{rank}, {rank}) for a tensor of rank {rank}, got {axis}")
    return [axis % rank for axis in given]


def _size(tensor: Tensor, axis: int) -> int:
    return tensor.shape[_axes(axis, tensor.ndim)[0]]


def _diagonal(tensor: Tensor, config: DiagonalInitConfig) -> Tensor:
    in_axes, out_axes = _axes(config.in_axes, tensor.ndim), _axes(config.out_axes, tensor.ndim)
    if set(in_axes) & set(out_axes):
        raise ValueError(f"out_axes must differ from in_axes={config.in_axes}, got {config.out_axes}")
    in_size, out_size = (math.prod(tensor.shape[axis] for axis in axes) for axes in (in_axes, out_axes))
    period = max(min(in_size, out_size), 1)
    rows = torch.arange(in_size, device=tensor.device) % period
    columns = torch.arange(out_size, device=tensor.device) % period
    matrix = (rows[:, None] == columns).to(tensor.dtype) * config.value
    # The tensor's axes in the order other, in, out: there the matrix broadcasts over the leading ones.
    others = [axis for axis in range(tensor.ndim) if axis not in {*in_axes, *out_axes}]
    order = others + in_axes + out_axes
    block = matrix.reshape([tensor.shape[axis] for axis in in_axes + out_axes])
    ordered = block.expand([tensor.shape[axis] for axis in order])
    return ordered.permute([order.index(axis) for axis in range(tensor.ndim)])


def _wang(tensor: Tensor, config: WangInitConfig) -> Tensor:
    stddev = 2.0 * config.mup_init_scale / math.sqrt(_size(tensor, config.axis)) / config.num_blocks
    return torch.randn_like(tensor) * stddev


def _xavier(tensor: Tensor, config: XavierInitConfig) -> Tensor:
    fans = _size(tensor, config.in_axis) + _size(tensor, config.out_axis)
    return torch.randn_like(tensor) * (config.mup_init_scale * math.sqrt(2.0 / fans))


def _small(tensor: Tensor, config: SmallInitConfig) -> Tensor:
    stddev = config.mup_init_scale / math.sqrt(2.5 * _size(tensor, config.axis))
    return torch.randn_like(tensor) * stddev


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
    WangInitConfig: _wang,
    XavierInitConfig: _xavier,
    SmallInitConfig: _small,
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
        tensor: What to fill, of any shape and floating dtype. Random numbers are drawn from torch's global state in at
            least float32, so that a seed gives the same weights in every narrower dtype.
        config: One of the initialiser configs of `plstm_config`.

    Returns:
        The same tensor.

    Raises:
        TypeError: If the config is no initialiser config; the message lists those that are.
        ValueError: If the config names an axis that the tensor does not have.
    """
    initializer = _INITIALIZERS.get(type(config))
    if initializer is None:
        known = ", ".join(sorted(config_class.__name__ for config_class in _INITIALIZERS))
        raise TypeError(f"config must be an instance of one of {known}, got {type(config).__name__}")
    if tensor.numel() == 0:
        return tensor
    draft = torch.empty(tensor.shape, dtype=accumulation_dtype(tensor.dtype), device=tensor.device)
    return tensor.copy_(initializer(draft, config))
