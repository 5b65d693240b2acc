"""Tensors as numpy arrays and back, without a change of bits."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def as_array(tensor: Tensor) -> np.ndarray:
    """Give a tensor's numbers to numpy; bfloat16 becomes the type of ml_dtypes.

    Args:
        tensor: any tensor, on any device; a distributed one is gathered.

    Returns:
        The array; it shares the memory of a contiguous tensor on the CPU.

    Raises:
        ValueError: the tensor has no numbers, since it is on the "meta" device.
    """
    whole = tensor.detach()
    if hasattr(whole, "full_tensor"):
        whole = whole.full_tensor()
    if whole.is_meta:
        raise ValueError("tensor: expected numbers, got a tensor on the meta device")
    whole = whole.cpu().contiguous()
    if whole.dtype != torch.bfloat16:
        return whole.numpy()
    import ml_dtypes

    return whole.view(torch.int16).numpy().view(ml_dtypes.bfloat16)


def index_array(name: str, indices: Any) -> np.ndarray:
    """Give indices to numpy, of whatever dtype.

    Args:
        name: of the argument, for messages.
        indices: a tensor.

    Returns:
        The array.

    Raises:
        TypeError: it is no dense tensor with values.
    """
    if not isinstance(indices, Tensor) or indices.layout != torch.strided or indices.is_meta:
        got = f"a {indices.layout} one on {indices.device}" if isinstance(indices, Tensor) else type(indices).__name__
        raise TypeError(f"{name}: expected a dense tensor with values, got {got}")
    if isinstance(indices, FakeTensor):
        raise TypeError(f"{name}: expected a dense tensor with values, got one without, as in exported programs")
    return indices.detach().cpu().numpy()


def distributed_like(tensor: Tensor, own: Tensor) -> Tensor:
    """Divide a whole tensor among processes as a module's own tensor is, if that is divided.

    Args:
        tensor: any shape, the same in every process.
        own: the module's tensor, of the same shape; a distributed one says how.

    Returns:
        The tensor, or this process's part of it.
    """
    if not hasattr(own, "full_tensor"):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    whole = tensor.to(own.device)
    return distribute_tensor(whole, own.device_mesh, own.placements) if isinstance(own, DTensor) else tensor


def as_tensor(array: np.ndarray) -> Tensor:
    """Give an array's numbers to torch.

    Args:
        array: any array of numbers; bfloat16 as the type of ml_dtypes.

    Returns:
        The tensor on the CPU; it shares the memory of a contiguous array that can be written.
    """
    own = np.require(array, requirements=["C", "W"])
    if own.dtype.name == "bfloat16":
        return torch.from_numpy(own.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(own)
