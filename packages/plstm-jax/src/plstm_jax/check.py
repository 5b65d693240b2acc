"""Is this installation right? Every op against the numpy reference, on the devices and dtypes of this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any, TextIO

import jax
import jax.numpy as jnp
import numpy as np

from plstm_jax import ops
from plstm_native import unavailable as no_kernels
from plstm_testing import selfcheck
from plstm_testing.conformance import OpCall, Result

IMPLEMENTATIONS: Mapping[str, Sequence[str]] = {
    "plstm_1d": ("recurrent", "chunkwise"),
    "plstm_1d_step": ("recurrent",),
    "plstm_2d": ("recurrent", "chunkwise", "parallel"),
    "plstm_2d_oriented": ("recurrent", "chunkwise", "parallel"),
    "plstm_graph": ("recurrent", "parallel"),
}
# What the native kernels are proven with, on a CPU that has them: code of their own for every mode, width of DV and
# kind of gates.
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
    "plstm_graph": ("dense", "dense_states", "chain", "star"),
}
DTYPES = ("float64", "float32", "bfloat16", "float16")
# A test runs each program once, so time spent on making it fast is lost, and cutting small programs into parts that are
# compiled side by side costs a third more. What users run is compiled otherwise, so the check itself does without these
# unless asked.
_QUICK: Mapping[str, Any] = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
_KEPT = 16  # compiled programs
_programs: dict[Any, Callable[..., Any]] = {}


def run_checks(
    devices: Sequence[str] | None = None,
    dtypes: Sequence[str] | None = None,
    *,
    quick: bool = False,
    stream: TextIO | None = None,
) -> int:
    """Compare every op with the reference and print a table.

    Args:
        devices: devices to check; all of this machine if None.
        dtypes: dtypes to check; all that the ops support if None.
        quick: compile without optimization, which takes a fraction of the time, but is not what other programs run.
        stream: where to print; standard output if None.

    Returns:
        Exit code: 0 if every row passes, else 1.

    Raises:
        ValueError: if a device or dtype is unknown.
    """
    stream = sys.stdout if stream is None else stream
    print(f"jax {jax.__version__} against the reference, relative RMS error", file=stream)
    layout = "{:<18} {:<10} {:<7} {:<9} {:>8} {:>8}  {}"
    print(layout.format("op", "form", "device", "dtype", "output", "gradient", ""), file=stream)
    rows = []
    for row in check_rows(devices, dtypes, quick=quick):
        rows.append(row)
        errors = f"{row.output_error:.1e}", f"{row.gradient_error:.1e}"
        verdict = "passed" if row.passed else f"FAILED {row.message}"
        line = layout.format(row.op, row.implementation, row.device, row.dtype, *errors, verdict)
        print(line.rstrip(), file=stream, flush=True)
    failed = sum(not row.passed for row in rows)
    print(f"{failed} of {len(rows)} checks failed" if failed else f"all {len(rows)} checks passed", file=stream)
    if no_kernels() is not None:
        print(f"there are no native kernels here: {no_kernels()}", file=stream)
    return 1 if failed else 0


def check_rows(
    devices: Sequence[str] | None = None, dtypes: Sequence[str] | None = None, *, quick: bool = False
) -> Iterator[selfcheck.Row]:
    """Compare every op with the reference, one row per op, implementation, device and dtype.

    Args:
        devices: devices to check; all of this machine if None.
        dtypes: dtypes to check; all that the ops support if None.
        quick: compile without optimization.

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
    run = partial(run_op, quick=quick)
    devices, dtypes = devices or available, dtypes or DTYPES
    yield from selfcheck.check(run, IMPLEMENTATIONS, devices=devices, dtypes=dtypes)
    if "cpu" in devices and no_kernels() is None:
        named = dict.fromkeys(NATIVE_CASES, ("native",))
        yield from selfcheck.check(run, named, devices=("cpu",), dtypes=dtypes, cases=NATIVE_CASES)


def available_devices() -> tuple[str, ...]:
    """Platforms of this machine, the default one first."""
    default = jax.default_backend()
    return (default,) if default == "cpu" else (default, "cpu")


def run_op(call: OpCall, *, quick: bool = False) -> Result:
    """Answer a call of the conformance suite: run an op under jit, and its gradients where a cotangent is given.

    Args:
        call: op, arguments as float64 arrays, dtype and device.
        quick: compile without optimization.

    Returns:
        Output, last state and gradients as float64 arrays.
    """
    device = jax.devices(call.device)[0]
    with jax.enable_x64(call.dtype == "float64"), jax.default_device(device):
        state_dtype = "float64" if call.dtype == "float64" else "float32"
        arguments = {name: _to_device(value, call.dtype_of(name)) for name, value in call.arguments.items()}
        weights = _to_device(call.cotangent, call.dtype), _to_device(call.cotangent_state, state_dtype)
        result, gradients = _run(call, arguments, weights, quick=quick)
        output, state = result if call.returns_state else (result, None)
        return Result(
            output=_array(output),
            last_state=None if state is None else jax.tree.map(_array, state),
            gradients={} if gradients is None else jax.tree.map(_array, gradients),
            output_dtype=output.dtype.name,
            state_dtype=None if state is None else jax.tree.leaves(state)[0].dtype.name,
        )


def _run(call: OpCall, arguments: dict[str, Any], weights: tuple[Any, Any], *, quick: bool) -> tuple[Any, Any]:
    """Result and gradients; None for the gradients where no cotangent is given."""
    # What has no dtype to differentiate by is part of the program, and so are the keywords.
    fixed = {name: value for name, value in arguments.items() if not _is_differentiable(value)}
    leaves = {name: value for name, value in arguments.items() if name not in fixed}
    program = _program(call, fixed, quick=quick)
    return (program(leaves), None) if call.cotangent is None else program(leaves, weights)


def _program(call: OpCall, fixed: dict[str, Any], *, quick: bool) -> Callable[..., Any]:
    """A compiled function of the arrays of a call; those of the last calls are kept for other numbers."""
    places = (sorted(given.items()) for given in (fixed, call.same, call.keywords))
    key = (call.op, call.cotangent is None, quick, *(_hashable(name, value) for of in places for name, value in of))
    try:
        hash(key)  # an empty dict would not look at it
    except TypeError:  # something that no op takes
        return _compiled(call, fixed, quick=quick)
    program = _programs.pop(key, None)
    _programs[key] = program = program or _compiled(call, fixed, quick=quick)
    if len(_programs) > _KEPT:
        del _programs[next(iter(_programs))]
    return program


def _hashable(name: str, value: Any) -> Any:
    """What tells a value from any other; True from 1, too."""
    if isinstance(value, np.ndarray):
        return name, value.shape, value.dtype, value.tobytes()
    return name, type(value), value


def _compiled(call: OpCall, fixed: dict[str, Any], *, quick: bool) -> Callable[..., Any]:
    op, same, keywords = getattr(ops, call.op), call.same, call.keywords
    returns_state = call.returns_state

    def function(leaves: dict[str, Any]) -> Any:
        given = {**fixed, **leaves}
        given |= {name: given[source] for name, source in same.items()}
        return op(**given, **keywords)

    def differentiate(leaves: dict[str, Any], weights: tuple[Any, Any]) -> tuple[Any, Any]:
        result, pull_back = jax.vjp(function, leaves)
        if not returns_state:
            return result, pull_back(weights[0])[0]
        state_weights = jax.tree.map(jnp.zeros_like, result[1]) if weights[1] is None else weights[1]
        return result, pull_back((weights[0], state_weights))[0]

    options = dict(quick_compilation()) if quick else None
    return jax.jit(function if call.cotangent is None else differentiate, compiler_options=options)


@cache
def quick_compilation() -> Mapping[str, Any]:
    """Options of `jax.jit` for what runs once: as many as the installed compiler knows."""
    return {name: value for name, value in _QUICK.items() if _is_known({name: value})}


def _is_known(options: dict[str, Any]) -> bool:
    try:
        jax.jit(lambda: jnp.zeros(()), compiler_options=options)()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def _is_differentiable(value: Any) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    return all(isinstance(part, jax.Array) for part in parts)


def _to_device(value: Any, dtype: str) -> Any:
    if isinstance(value, tuple):
        return tuple(_to_device(part, dtype) for part in value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return jnp.asarray(value, dtype)
    return value


def _array(array: jax.Array) -> np.ndarray:
    return np.asarray(array).astype(np.float64)
