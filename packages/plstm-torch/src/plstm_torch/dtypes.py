"""Dtype names of the configs, and where precision must not fall below float32."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from plstm_config.options import choose
from plstm_torch.tracing import constant_while_traced

_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of a config's dtype name.

    Raises:
        ValueError: if the name is none of the known ones, which the message lists.
    """
    return choose("dtype", name, _DTYPES)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype for gates, states and statistics: float32 for anything narrower, else the dtype itself."""
    return torch.promote_types(dtype, torch.float32)


def full_precision(tensor: Tensor) -> Tensor:
    """The tensor in its accumulation dtype: at least float32, float64 left alone."""
    return tensor.to(accumulation_dtype(tensor.dtype))


def answer(output: Tensor, x: Tensor) -> Tensor:
    """What a layer or block computed, in the dtype of the input that it was asked with.

    So it fits between the modules of others, whatever it computes in and whatever autocast makes of its linear maps.

    Args:
        output: [...] of any floating dtype.
        x: the input [...]; where it is of integers, the output stays as it is.

    Returns:
        The output [...].
    """
    return output.to(x.dtype) if x.is_floating_point() else output


def residual(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The input of a block as its residual connections add to it.

    Args:
        x: [...] of any floating dtype.
        dtype: in which the block computes.

    Returns:
        The input [...] in the wider of both dtypes: a wide stream through narrow blocks keeps its digits.
    """
    return x.to(torch.promote_types(x.dtype, dtype))


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """A context in which the caller's autocast has no effect on the tensor's kind of device.

    Gates, states and statistics lie outside of what autocast may narrow: a product of hundreds of bfloat16 gates
    is wrong in its first digit.
    """
    device_type = tensor.device.type
    if _has_autocast(device_type) and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()  # also for devices that have no autocast, "meta" among them


@constant_while_traced  # the compiler of torch 2.11 cannot look into it
def _has_autocast(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Concatenate; torch's own refuses bfloat16 where autocast is to float16, and float16 where it is to bfloat16."""
    with without_autocast(tensors[0]):
        return torch.cat(list(tensors), dim)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Stack, see `cat`."""
    with without_autocast(tensors[0]):
        return torch.stack(list(tensors), dim)
