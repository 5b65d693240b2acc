"""Checks of arguments that need torch; shapes are checked by `plstm_config.shapes`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor


def check_tensors(named: Mapping[str, object]) -> list[Tensor]:
    """The tensors among the arguments, once they are known to be floating point and on one device.

    Args:
        named: argument by name; None where an optional one is missing.

    Returns:
        Those that are there, in order.

    Raises:
        TypeError: if one is no tensor, or has no floating dtype.
        ValueError: if one is on another device than the first.
    """
    tensors: list[Tensor] = []
    for name, tensor in named.items():
        if tensor is None:
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(tensor).__name__}")
        if not tensor.dtype.is_floating_point:
            raise TypeError(f"{name}: expected a floating-point dtype, got {tensor.dtype}")
        if tensors and tensor.device != tensors[0].device:
            first = next(iter(named))
            raise ValueError(f"{name}: expected the device of {first}, {tensors[0].device}, got {tensor.device}")
        tensors.append(tensor)
    return tensors


def common_dtype(tensors: list[Tensor]) -> torch.dtype:
    """The dtype that all of them promote to."""
    return reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
