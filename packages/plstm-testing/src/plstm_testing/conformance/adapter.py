"""What a backend tells the suite about itself."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

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
class ModuleCall:
    """One call of a layer, block or model, in inference.

    Nothing here knows a framework: how parameters become modules, whether the call is compiled or a graph is padded is
    the backend's own business.

    Attributes:
        config: complete config of the module; it says in which dtypes parameters are held and outputs computed, which
            need not be that of the inputs.
        parameters: float64 arrays that are exact in the config's `param_dtype`, by the names and in the shapes of
            `plstm_config.parameter_tree(config)`.
        inputs: what the module is called with, in order, by name: float64 arrays, exact in `dtype`, to be given in it;
            integer arrays (`token_ids`, a `graph` as edge index [2,E]), or a `DagTopology`.
        keywords: `cu_seqlens` (integers [S+1]), `return_cache`, and `cache`: arrays by dotted name as
            `reference.apply` names them, windows in `dtype` and states in float32 or higher.
        method: "forward", or "step" for one step of every sequence; without a `cache` from the sequences' start. A step
            always returns the cache.
        cotangent: weights of the output; None asks for no derivative.
        directions: directions of inputs (by their names) and parameters (``param/<name>``) for the derivative.
        dtype: dtype of the floating inputs.
        device: one of the adapter's devices.
    """

    config: Any
    parameters: Mapping[str, Array]
    inputs: Mapping[str, Any]
    keywords: Mapping[str, Any] = field(default_factory=dict)
    method: Literal["forward", "step"] = "forward"
    cotangent: Array | None = None
    directions: Mapping[str, Array] = field(default_factory=dict)
    dtype: str = "float64"
    device: str = "cpu"


@dataclass(frozen=True)
class Result:
    """What came back, as float64 numpy arrays.

    Attributes:
        output: the output.
        last_state: the last state where asked for.
        gradients: gradients of ``sum(output * cotangent) + sum(last_state * cotangent_state)`` by argument name
            (``param/<name>`` for parameters of golden modules); zero where an argument does not reach the result.
        output_dtype: name of the dtype in which the output came.
        state_dtype: name of the dtype in which the last state, or the states in the cache, came; None without one.
        cache: a module's cache, arrays by dotted name; None where it was not asked for.
        derivative: for modules: derivative of ``sum(output * cotangent)`` along all directions of the call together,
            which is the sum over them of ``sum(gradient * direction)``; None where it was not asked for.
        has_gradients: set by the suite to False for backends that say that they lack gradients.
    """

    output: Array
    last_state: Value | None = None
    gradients: Mapping[str, Value] = field(default_factory=dict)
    output_dtype: str = "float64"
    state_dtype: str | None = None
    cache: Mapping[str, Array] | None = None
    derivative: float | None = None
    has_gradients: bool = True


class Adapter(Protocol):
    """A backend as the suite sees it.

    One without modules leaves `module_classes` and `golden_kinds` empty, and is asked for `run_op` only. One without
    ops of its own, since they are those of another backend, leaves `ops` empty and is never asked for it.

    Attributes:
        name: name of the backend.
        ops: the op functions by name; a missing op fails its checks.
        implementations: names of the implementations of each op, without "auto".
        dtypes: dtypes that the backend computes in.
        devices: devices that are there, the default one first.
        module_classes: config classes of the modules that the backend has.
        golden_kinds: kinds of golden modules that the backend can load from the original's weights.
        compiles: whether each kind of call costs a compilation; may be left out. If so, modules are asked for outputs
            and derivatives together, instead of once for each, and for sequences in pieces in float64 only; below
            float64, forms take turns over the cases and modules are asked for in the lowest dtype, and "auto" is asked
            for in float64.
        lacks: what the backend has not and is not asked for, some of `conformance.lacks.NAMES`: features ("gradients",
            "packing", "states", "state_tracking"), ops, or groups of checks ("errors", ...); may be left out.
    """

    name: str
    ops: Mapping[str, Callable[..., Any]]
    implementations: Mapping[str, Sequence[str]]
    dtypes: Sequence[str]
    devices: Sequence[str]
    module_classes: Sequence[type]
    golden_kinds: Sequence[str]

    def run_op(self, call: OpCall) -> Result:
        """Run one op, and its gradients where a cotangent is given; exceptions of the op pass through."""
        ...

    def run_module(self, call: ModuleCall) -> Result:
        """Make a module with the given parameters, call it, and differentiate where a cotangent is given."""
        ...

    def run_golden(self, case: GoldenCase) -> Result:
        """Build the module of a golden case from its config and parameters, run it in float64 and differentiate it.

        Gradients carry the names of ``case.gradients``, in the layout that the case records.
        """
        ...

    def init(self, call: ModuleCall, seed: int) -> Mapping[str, Array]:
        """Make a new module whose random numbers follow from a seed.

        Args:
            call: its config, and inputs for backends that make parameters with the first call.
            seed: an integer >= 0.

        Returns:
            Its parameters as float64 arrays by canonical name and in canonical shape.
        """
        ...

    def save(self, config: Any, parameters: Mapping[str, Array], folder: Path) -> None:
        """Make a module with the given parameters, and write it into a folder of the common format.

        Args:
            config: of the module.
            parameters: float64 arrays by canonical name, each in its canonical shape.
            folder: where to write.
        """
        ...

    def load(self, folder: Path) -> tuple[Any, Mapping[str, Array]]:
        """Read the module in a folder; exceptions pass through.

        Returns:
            Its config, and its parameters as float64 arrays by canonical name and in canonical shape.
        """
        ...


def load_adapter(path: str | Path) -> Adapter:
    """Import an adapter file.

    Args:
        path: python file that defines `adapter`.

    Returns:
        The adapter.

    Raises:
        ValueError: if the file is missing or defines no `adapter`.

    Examples:
        >>> import tempfile
        >>> from plstm_testing.conformance import load_adapter
        >>> from pathlib import Path
        >>> path = Path(tempfile.mkdtemp(), "adapter.py")
        >>> _ = path.write_text("from plstm_testing.conformance.numpy_adapter import adapter")
        >>> load_adapter(path).name
        'numpy'
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
        raise ValueError(f"conformance adapter: expected a file that defines `adapter`, got {str(path)!r}")
    found: Adapter = module.adapter
    return found
