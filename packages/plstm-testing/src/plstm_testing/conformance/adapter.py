"""What a backend tells the suite about itself."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..golden import GoldenCase

Array = np.ndarray
# A border state of the grid ops is a pair of arrays.
Value = Array | tuple[Array, Array]


@dataclass(frozen=True)
class OpCall:
    """One call of an op, with everything that a backend needs to answer it.

    Attributes:
        op: name of the op, such as "plstm_1d".
        arguments: differentiable arguments by name: float64 arrays that are exact in `dtype_of` their name, pairs of
            them for border states, and `initial_state` where given. An entry that is no float array is passed on as it
            is.
        same: further argument names under which the very array of another one is passed:
            ``{"transition_ru": "transition_rl"}``. They have no entry in `arguments` and no gradient of their own.
        keywords: everything else, such as `implementation`, `mode`, `scale`, `chunk_size`, `return_last_state`; numpy
            arrays (`cu_seqlens`) become integer arrays of the backend, `topology` what its graph op takes.
        cotangent: weights of the output; None asks for the forward pass alone.
        cotangent_state: weights of the last state, None where `return_last_state` is off.
        dtype: dtype of the arrays: "float64", "float32", "bfloat16" or "float16"; states and `cotangent_state` are
            float64 with "float64" and float32 otherwise.
        device: one of the adapter's devices.
        strided: pass arrays that are not contiguous, where the backend knows such.
    """

    op: str
    arguments: Mapping[str, Any]
    same: Mapping[str, str] = field(default_factory=dict)
    keywords: Mapping[str, Any] = field(default_factory=dict)
    cotangent: Array | None = None
    cotangent_state: Value | None = None
    dtype: str = "float64"
    device: str = "cpu"
    strided: bool = False

    @property
    def returns_state(self) -> bool:
        """Whether the op returns the pair of output and last state; a step always does."""
        return self.op == "plstm_1d_step" or bool(self.keywords.get("return_last_state"))

    def dtype_of(self, name: str) -> str:
        """The dtype of an argument: states are kept in float32 at least."""
        is_state = name in ("initial_state", "state") and self.dtype != "float64"
        return "float32" if is_state else self.dtype


@dataclass(frozen=True)
class Result:
    """What came back, as float64 numpy arrays.

    Attributes:
        output: the output.
        last_state: the last state where asked for.
        gradients: gradients of ``sum(output * cotangent) + sum(last_state * cotangent_state)`` by argument name
            (``param/<name>`` for parameters of modules); zero where an argument does not reach the result.
        output_dtype: name of the dtype in which the output came.
        state_dtype: name of the dtype in which the last state came, None without one.
    """

    output: Array
    last_state: Value | None = None
    gradients: Mapping[str, Value] = field(default_factory=dict)
    output_dtype: str = "float64"
    state_dtype: str | None = None


class Adapter(Protocol):
    """A backend as the suite sees it.

    Attributes:
        name: name of the backend.
        ops: the op functions by name; a missing op fails its checks.
        implementations: names of the implementations of each op, without "auto".
        dtypes: dtypes that the backend computes in.
        devices: devices that are there, the default one first.
        golden_kinds: kinds of golden modules that the backend has.
    """

    name: str
    ops: Mapping[str, Callable[..., Any]]
    implementations: Mapping[str, Sequence[str]]
    dtypes: Sequence[str]
    devices: Sequence[str]
    golden_kinds: Sequence[str]

    def run_op(self, call: OpCall) -> Result:
        """Run one op, and its gradients where a cotangent is given; exceptions of the op pass through."""
        ...

    def run_module(self, case: GoldenCase) -> Result:
        """Build the module of a golden case from its config and parameters, run it in float64 and differentiate it.

        Gradients carry the names of ``case.gradients``, in the layout that the case records.
        """
        ...


def load_adapter(path: str | Path) -> Adapter:
    """Import an adapter file.

    Args:
        path: Python file that defines `adapter`.

    Returns:
        The adapter.

    Raises:
        ValueError: if the file is missing or defines no `adapter`.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"conformance adapter: expected a Python file, got {str(path)!r}")
    spec = importlib.util.spec_from_file_location(f"conformance_adapter_{path.parent.parent.name}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"conformance adapter: expected a Python file, got {str(path)!r}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "adapter"):
        raise ValueError(f"conformance adapter: expected {str(path)!r} to define `adapter`")
    found: Adapter = module.adapter
    return found
