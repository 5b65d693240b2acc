"""Whether the compiled kernels for CPUs take a call, and their arrays as addresses."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

import plstm_native
from plstm_torch.ops._exporting import is_exporting
from plstm_torch.ops._fast_form import has_numbers
from plstm_torch.tracing import constant_while_traced

_DTYPES = {torch.float32: "float32", torch.float64: "float64"}


@constant_while_traced
def no_kernels() -> str | None:
    """Why this machine has no kernels, None if it has."""
    return plstm_native.unavailable()


def unsupported(op: str, query: Tensor, sizes: Mapping[str, int]) -> str | None:
    """Why the kernels of an op cannot take a call.

    Args:
        op: name of the op, for the message.
        query: any argument of the call, in its compute dtype.
        sizes: the J dimensions, by letters.

    Returns:
        The reason as a sentence, None if they can.
    """
    if query.device.type != "cpu":
        return f"native kernels run on the CPU, got {query.device.type}"
    if is_exporting() or not (torch.compiler.is_compiling() or has_numbers(query)):
        return "what is traced or exported has to be operations of torch"
    return plstm_native.scalar_only(op, sizes) or no_kernels()


def dtype_name(tensor: Tensor) -> str:
    """The name that the kernels know a tensor's dtype by."""
    return _DTYPES[tensor.dtype]


def addresses(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Where contiguous tensors begin; they have to live until the kernels have returned."""
    return {name: tensor.data_ptr() for name, tensor in tensors.items()}
