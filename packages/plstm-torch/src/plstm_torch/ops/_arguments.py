"""Checks of arguments that need torch; shapes are checked by `plstm_config.shapes`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor

from plstm_config.checks import check_floating


def check_tensors(named: Mapping[str, object]) -> list[Tensor]:
    """The tensors among the arguments, once they are known to be dense, floating point and on one device.

    Args:
        named: argument by name; None where an optional one is missing.

    Returns:
        Those that are there, in order.

    Raises:
        TypeError: if one is no dense tensor, or has no floating dtype of at least 16 bits.
        ValueError: if one is on another device than the first.
    """
    tensors: list[Tensor] = []
    for name, tensor in named.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
        if tensor.is_nested or tensor.layout != torch.strided:
            kind = "a nested tensor" if tensor.is_nested else f"layout {tensor.layout}"
            raise TypeError(f"{name}: expected a dense tensor, got {kind}")
        check_floating(name, tensor.dtype, floating=tensor.dtype.is_floating_point, size=tensor.dtype.itemsize)
        if tensors and tensor.device != tensors[0].device:
            first = next(iter(named))
            raise ValueError(f"{name}: expected the device of {first}, {tensors[0].device}, got {tensor.device}")
        tensors.append(tensor)
    return tensors


def common_dtype(tensors: list[Tensor]) -> torch.dtype:
    """The dtype that all of them promote to."""
    return reduce(torch.promote_types, (tensor.dtype for tensor in tensors))


def attach(result: Tensor, *tensors: Tensor) -> Tensor:
    """A result that no number of the tensors can change, as their function: with zero gradients instead of none.

    Args:
        result: the result.
        tensors: where it holds something, only the empty ones among them count.

    Returns:
        The result.
    """
    for tensor in tensors:
        if result.numel() == 0 or tensor.numel() == 0:
            result = result + tensor.sum()
    return result


def scale_factor(scale: object, default: float, device: torch.device) -> float | Tensor:
    """The factor of the output.

    Args:
        scale: none, a number, or an array without dimensions, as `plstm_config.options.check_scale` lets pass.
        default: the factor if it is None.
        device: of the call.

    Returns:
        A Python number, or the tensor as it is.

    Raises:
        ValueError: if it is a tensor on another device, the CPU apart.
    """
    if scale is None:
        return default
    if not isinstance(scale, Tensor):
        return float(scale)  # type: ignore[arg-type]
    if scale.device not in (device, torch.device("cpu")):
        raise ValueError(f"scale: expected a number, or one on the device of query, {device}, got {scale.device}")
    return scale
