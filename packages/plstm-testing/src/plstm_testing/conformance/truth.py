"""What the reference says about a case, computed once per session and dtype."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from .. import reference
from .adapter import Array, OpCall, Result, Value
from .cases import OPS, cases
from .draws import Case
from .sharing import sharing_cases

_FORWARD = {name: getattr(reference, name) for name in (*OPS, "plstm_1d_step")}
_GRADIENTS = {name: getattr(reference, f"{name}_gradients") for name in _FORWARD}
# The reference has one form: what chooses or tunes an implementation is nothing to it.
TUNING = frozenset({"implementation", "chunk_size", "block_size"})


def round_to(array: Array, dtype: str) -> Array:
    """Round to what a dtype can hold, to nearest with ties to even; still float64.

    Args:
        array: float64, any shape.
        dtype: "float64", "float32", "bfloat16" or "float16".

    Returns:
        The rounded array.
    """
    if dtype != "bfloat16":
        return np.asarray(array, np.float64).astype(dtype).astype(np.float64)
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    halfway = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return ((bits + halfway) & np.uint32(0xFFFF0000)).view(np.float32).astype(np.float64).reshape(np.shape(array))


def rounded(value: Any, dtype: str) -> Any:
    """`round_to` for arrays and pairs of arrays; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(rounded(part, dtype) for part in value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return round_to(value, dtype)
    return value


def state_dtype(dtype: str) -> str:
    """States stay in float32 or higher."""
    return "float64" if dtype == "float64" else "float32"


def call(case: Case, implementation: str, dtype: str, device: str, *, strided: bool = False) -> OpCall:
    """The call that asks a backend for a case, everything rounded to the dtype it computes in.

    Args:
        case: the case.
        implementation: asked for.
        dtype: of the arguments.
        device: where to run it.
        strided: whether arguments shall not be contiguous.

    Returns:
        The call.
    """
    states = state_dtype(dtype)
    arguments = {
        name: rounded(value, states if name == "initial_state" else dtype) for name, value in case.arguments.items()
    }
    return OpCall(
        op=case.op,
        arguments=arguments,
        same=case.same,
        keywords={**case.keywords, "implementation": implementation},
        cotangent=rounded(case.cotangent, dtype),
        cotangent_state=rounded(case.cotangent_state, states),
        dtype=dtype,
        device=device,
        strided=strided,
    )


@cache
def expected(op: str, name: str, dtype: str) -> Result:
    """Output, last state and gradients of a generated case on its rounded arguments.

    Args:
        op: name of the op.
        name: of the case.
        dtype: to which arguments are rounded.

    Returns:
        What is right.
    """
    (case,) = (case for case in (*cases(op), *sharing_cases(op)) if case.name == name)
    return evaluate(call(case, "auto", dtype, "cpu"))


def evaluate(call: OpCall) -> Result:
    """Answer a call with the reference."""
    keywords = {name: value for name, value in call.keywords.items() if name not in TUNING}
    arguments = with_same(call.arguments, call.same)
    result = _FORWARD[call.op](**arguments, **keywords)
    output, state = result if call.returns_state else (result, None)
    keywords.pop("return_last_state", None)
    if call.cotangent is None:
        return Result(output, state)
    gradients = _GRADIENTS[call.op](
        **arguments, **keywords, cotangent=call.cotangent, cotangent_state=call.cotangent_state
    )
    return Result(output, state, collect(gradients, call))


def with_same(arguments: Mapping[str, Any], same: Mapping[str, str]) -> dict[str, Any]:
    """Arguments with the very same array under each of its names."""
    return dict(arguments) | {name: arguments[source] for name, source in same.items()}


def collect(gradients: Mapping[str, Value], call: OpCall) -> dict[str, Value]:
    """Gradients of the arguments that were given: one that has two names gets the sum of both."""
    found: dict[str, Any] = {name: gradients[name] for name, value in call.arguments.items() if value is not None}
    for name, source in call.same.items():
        found[source] = found[source] + gradients[name]
    return found
