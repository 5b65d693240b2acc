"""Is this installation right? Every op against the numpy reference, on the devices and dtypes of this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor

from plstm_testing import selfcheck
from plstm_testing.conformance import OpCall, Result
from plstm_torch import ops
from plstm_torch.ops._native import no_kernels
from plstm_torch.ops._triton import support

IMPLEMENTATIONS: Mapping[str, Sequence[str]] = {
    "plstm_1d": ("recurrent", "chunkwise"),
    "plstm_1d_step": ("recurrent",),
    "plstm_2d": ("recurrent", "chunkwise", "parallel"),
    "plstm_2d_oriented": ("recurrent", "chunkwise", "parallel"),
    "plstm_graph": ("recurrent", "parallel"),
}
# What the Triton kernels are proven with, on a CUDA device that runs them: every dtype compiles code of its own.
KERNEL_CASES: Mapping[str, Sequence[str]] = {
    "plstm_1d": (
        *("initial_state", "several_default_chunks", "special_gates", "huge_gates", "packed_default_chunk"),
        *("state_tracking", "packed_state_tracking"),
    ),
    "plstm_2d_oriented": (
        *("L_output_only", "R_default_block", "P_output_only", "P_default_block"),
        *("full_default_block", "P_odd_sides"),
    ),
    "plstm_graph": ("dense", "chain", "star", "only_transitions_are_matrices"),
}
# What the native kernels are proven with, on a CPU that has them: code of their own for every mode, JT and width of DV.
NATIVE_CASES: Mapping[str, Sequence[str]] = {
    "plstm_1d": (
        *("initial_state", "several_default_chunks", "special_gates", "huge_gates", "packed_default_chunk"),
        *("state_tracking", "packed_state_tracking"),
    ),
    "plstm_2d": ("L_output_only", "R_default_block", "full_default_block", "P_default_block"),
    "plstm_2d_oriented": (
        *("L_output_only", "R_default_block", "P_output_only", "P_default_block"),
        *("full_default_block", "P_odd_sides"),
    ),
    "plstm_graph": ("dense", "chain", "star"),
}
DTYPES = ("float64", "float32", "bfloat16", "float16")
_LAYOUT = "{:<18} {:<14} {:<8} {:<9} {:>8} {:>8}  {}"


def run_checks(
    devices: Sequence[str] | None = None, dtypes: Sequence[str] | None = None, *, out: TextIO | None = None
) -> int:
    """Compare every op with the reference and print a table, each row as soon as it is known.

    It is plain text: the command is part of the plain installation, which brings no package that draws tables.

    Args:
        devices: devices to check; all of this machine if None.
        dtypes: dtypes to check; all that the ops support if None.
        out: where to print; standard output if None.

    Returns:
        Exit code: 0 if every row passes, else 1.

    Raises:
        ValueError: if a device or dtype is unknown.
    """
    out = out or sys.stdout
    rows, failed = check_rows(devices, dtypes), []
    number = 0
    for number, row in enumerate(rows, start=1):
        if number == 1:
            print(f"torch {torch.__version__} against the reference, relative RMS error", file=out)
            print(_LAYOUT.format("op", "implementation", "device", "dtype", "output", "gradient", ""), file=out)
        errors = f"{row.output_error:.1e}", f"{row.gradient_error:.1e}"
        verdict = "passed" if row.passed else "FAILED"
        print(_LAYOUT.format(row.op, row.implementation, row.device, row.dtype, *errors, verdict), file=out, flush=True)
        if not row.passed:
            failed.append(row)
    for row in failed:
        if row.message:
            print(f"{row.op} {row.implementation} {row.device} {row.dtype}: {row.message}", file=out)
    print(f"{len(failed)} of {number} checks failed" if failed else f"all {number} checks passed", file=out)
    if no_kernels() is not None:
        print(f"there are no native kernels here: {no_kernels()}", file=out)
    return 1 if failed else 0


def check_rows(devices: Sequence[str] | None = None, dtypes: Sequence[str] | None = None) -> Iterator[selfcheck.Row]:
    """Compare every op with the reference, one row per op, implementation, device and dtype.

    The Triton kernels are checked where they run: others have shipped kernels that a new generation of GPUs, or of the
    compiler, made wrong in silence.

    Args:
        devices: devices to check; all of this machine if None.
        dtypes: dtypes to check; all that the ops support if None.

    Yields:
        Each row as soon as it is known.

    Raises:
        ValueError: if a device or dtype is unknown.
    """
    available = available_devices()
    for device in devices or ():
        if device not in available:
            raise ValueError(f"devices: expected some of {', '.join(map(repr, available))}, got {device!r}")
    for dtype in dtypes or ():
        if dtype not in DTYPES:
            raise ValueError(f"dtypes: expected some of {', '.join(map(repr, DTYPES))}, got {dtype!r}")
    devices, dtypes = devices or available, dtypes or DTYPES
    yield from selfcheck.check(run_op, IMPLEMENTATIONS, devices=devices, dtypes=dtypes)
    if "cpu" in devices and no_kernels() is None:
        named = dict.fromkeys(NATIVE_CASES, ("native",))
        yield from selfcheck.check(run_op, named, devices=("cpu",), dtypes=dtypes, cases=NATIVE_CASES)
    kernels = [device for device in devices if support.no_machine(device, None) is None]
    named = dict.fromkeys(KERNEL_CASES, ("triton",))
    yield from selfcheck.check(run_op, named, devices=kernels, dtypes=dtypes, cases=KERNEL_CASES)


def available_devices() -> tuple[str, ...]:
    """The CPU, and the CUDA device where there is one."""
    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def run_op(call: OpCall) -> Result:
    """Answer a call of the conformance suite: run an op, and its gradients where a cotangent is given.

    Args:
        call: op, arguments as float64 arrays, dtype and device.

    Returns:
        Output, last state and gradients as float64 arrays.
    """
    arguments = {name: _argument(name, value, call) for name, value in call.arguments.items()}
    same = {name: arguments[source] for name, source in call.same.items()}
    keywords = {
        name: torch.from_numpy(value).to(call.device) if isinstance(value, np.ndarray) else value
        for name, value in call.keywords.items()
    }
    result = getattr(ops, call.op)(**arguments, **same, **keywords)
    output, state = result if call.returns_state else (result, None)
    return Result(
        output=_array(output),
        last_state=_map(_array, state),
        gradients={} if call.cotangent is None else _gradients(call, arguments, output, state),
        output_dtype=_name(output.dtype),
        state_dtype="+".join(sorted({_name(part.dtype) for part in _parts(state)})) or None,
    )


def _gradients(call: OpCall, arguments: dict[str, Any], output: Tensor, state: Any) -> dict[str, Any]:
    results = [output, *_parts(state)]
    weights = [call.cotangent, *_parts(call.cotangent_state)]
    cotangents = [
        _laid_out(torch.from_numpy(np.array(weight)).to(result.device, result.dtype), call)
        for result, weight in zip(results, weights, strict=True)
    ]
    leaves = {name: value for name, value in arguments.items() if value is not None}
    flat = [tensor for value in leaves.values() for tensor in _parts(value)]
    # strict: an argument without a gradient would have none in a user's optimizer either
    remaining = iter(torch.autograd.grad(results, flat, cotangents))
    return {name: _map(lambda _: _array(next(remaining)), value) for name, value in leaves.items()}


def _argument(name: str, value: Any, call: OpCall) -> Any:
    def tensor(array: Any) -> Any:
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            return array
        moved = torch.from_numpy(np.array(array)).to(call.device, getattr(torch, call.dtype_of(name)))
        return _laid_out(moved, call).requires_grad_(call.cotangent is not None)

    return _map(tensor, value)


def _laid_out(tensor: Tensor, call: OpCall) -> Tensor:
    """The tensor; where the call says so at every second place of a buffer whose other places hold NaN."""
    return torch.stack([tensor, torch.full_like(tensor, torch.nan)], dim=-1)[..., 0] if call.strided else tensor


def _map(function: Any, value: Any) -> Any:
    """Apply to a value or to each of a pair; None stays None."""
    if isinstance(value, tuple):
        return tuple(function(part) for part in value)
    return None if value is None else function(value)


def _parts(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, tuple) else [value]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).numpy()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
