"""Whether there are Triton kernels for a call, and on what machine: nothing here imports triton."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from plstm_torch.tracing import constant_while_traced

HEAD_DIM = 256  # largest DK and DV
_CAPABILITY = (8, 0)  # the first with bfloat16 and tf32 in tensor cores


def unsupported(
    op: str,
    device: torch.device,
    dtypes: Sequence[torch.dtype],
    sizes: Mapping[str, int],
    sides: int = 0,
    states: int = 1,
) -> str | None:
    """Why the kernels of an op cannot take a call.

    Args:
        op: name of the op, for the message.
        device: where the arguments are.
        dtypes: dtypes of the arguments.
        sizes: sizes by the letters of the shapes: DK, DV, all J dimensions, X and Y where there are any.
        sides: largest X and Y.
        states: largest JT; where it is 1, all J dimensions are.

    Returns:
        The reason as a sentence, None if they can.
    """
    for name, size in sizes.items():
        if name == "JT" and size > states > 1:
            return f"{op} has kernels for {name} up to {states}, got {name}={size}"
        if name.startswith("J") and size != 1 and states == 1:
            return f"{op} has kernels for J dimensions of 1, got {name}={size}"
        if name in ("DK", "DV") and size > HEAD_DIM:
            return f"{op} has kernels for {name} up to {HEAD_DIM}, got {name}={size}"
        if name in ("X", "Y") and size > sides:
            return f"{op} has kernels for sides up to {sides}, got {name}={size}"
    for dtype in dtypes:
        if dtype not in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
            return f"{op} has kernels for float64, float32, bfloat16 and float16, got {dtype}"
    return no_machine(device.type, device.index)


def taken_by_auto(tensor: Tensor) -> bool:
    """Whether "auto" may choose kernels: on CUDA tensors, but never in the interpreter, which is for tests."""
    return tensor.device.type == "cuda" and not interpreted()


@constant_while_traced
def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on any device and without a compiler."""
    return os.environ.get("TRITON_INTERPRET", "") == "1"


def _installed() -> bool:
    try:
        return importlib.util.find_spec("triton") is not None
    except ValueError:  # what stands in its place in sys.modules is no module
        return False


@constant_while_traced
def no_machine(kind: str, index: int | None) -> str | None:
    """Why this machine cannot run kernels on a device, None if it can.

    Args:
        kind: "cuda" or another type of device.
        index: which of them, None for the current one.

    Returns:
        The reason, or None.
    """
    if not _installed():
        return "the package triton is not installed (pip install 'plstm-torch[triton]')"
    if interpreted():
        return None
    if kind != "cuda":
        return f"kernels run on CUDA devices, got {kind}"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    if torch.version.hip is not None:
        return "kernels are for NVIDIA devices, this torch is built for ROCm"
    capability = torch.cuda.get_device_capability(index)
    if capability < _CAPABILITY:
        return f"kernels need compute capability 8.0, got {capability[0]}.{capability[1]}"
    return None
