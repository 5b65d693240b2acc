"""How the conformance suite calls modules in JAX, whatever library holds their parameters."""

from __future__ import annotations

import gc
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plstm_config.original import MigrationWarning
from plstm_config.parameters import parameter_tree
from plstm_jax.check import available_devices, quick_compilation
from plstm_jax.parameters import Params, flatten, unflatten
from plstm_testing import golden, reference
from plstm_testing.conformance import ModuleCall, Result

_KEPT = 16  # compiled programs of modules


def set_up() -> None:
    """Keep compiled programs on disk, and let no backend rely on what JAX promotes unasked.

    Most of the time goes into tracing and compiling. Many calls lead to the same program ("auto" to that of what it
    chooses), and several processes may share the work. What tracing makes and drops without circles the collector of
    circles need not look through again and again.
    """
    gc.set_threshold(50_000, 20, 100)
    place = Path(tempfile.gettempdir()) / f"plstm-jax-{jax.__version__}"
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_numpy_dtype_promotion", "strict")


class ModuleAdapter(ABC):
    """The part of an adapter that runs modules, under jit and as functions of their parameters.

    A library of modules says how it calls, writes and reads them; parameters go in and out as nested mappings by
    canonical names. It has the ops of plstm-jax, which the suite has seen, and the same formulas, so one dtype tells
    whether its modules hold and pass on what they should. An adapter that names ops has `run_op`, too.
    """

    ops: Mapping[str, Callable[..., Any]] = {}
    implementations: Mapping[str, Sequence[str]] = {}
    dtypes: Sequence[str] = ("float64",)
    devices: Sequence[str] = available_devices()
    compiles: bool = True
    module_classes: Sequence[type] = reference.module_classes()
    golden_kinds: Sequence[str] = tuple(
        dict.fromkeys(case.kind for case in golden.cases() if not case.kind.startswith("op_"))
    )

    def __init__(self) -> None:
        self._programs: dict[Any, Callable[..., Any]] = {}

    @abstractmethod
    def new(self, call: ModuleCall, seed: int) -> Params:
        """Draw the parameters of a new module; the inputs of the call are there for libraries that need some."""

    @abstractmethod
    def apply(self, config: Any, params: Params, *inputs: Any, **keywords: Any) -> Any:
        """Call a module that holds these parameters."""

    @abstractmethod
    def step(self, config: Any, params: Params, x: Any, cache: Any) -> Any:
        """Advance its sequences by one step."""

    @abstractmethod
    def init_cache(self, config: Any, batch_size: int) -> Any:
        """Make the cache of a module's sequences that have not begun."""

    @abstractmethod
    def write(self, config: Any, params: Params, folder: Path) -> None:
        """Write a module that holds these parameters."""

    @abstractmethod
    def read(self, folder: Path) -> tuple[Any, Params]:
        """Read a module: its config and its parameters."""

    @abstractmethod
    def read_original(self, mapping: Any, state_dict: Mapping[str, Any]) -> tuple[Any, Params]:
        """Make a module from a config and weights of the original project: its config and its parameters."""

    def run_module(self, call: ModuleCall) -> Result:
        """Call a module as a function of its parameters, and differentiate where a cotangent is given."""
        with jax.enable_x64(True):
            given = _Given(self, call)
            output, cache, *grads = jax.device_get(self._program(call, given)(*given.arrays()))
        states = {array.dtype.name for name, array in cache.items() if name.endswith("state")}
        return Result(
            np.asarray(output, np.float64),
            output_dtype=output.dtype.name,
            state_dtype="+".join(sorted(states)) or None,
            cache={name: np.asarray(array, np.float64) for name, array in cache.items()},
            derivative=_along(grads[0], call.directions) if grads else None,
        )

    def _program(self, call: ModuleCall, given: _Given) -> Callable[..., Any]:
        """A compiled function of all arrays of a call. Those of the last calls are kept: many are asked for again."""
        differentiated = call.cotangent is not None
        key = (call.config, call.method, differentiated, given.fixed_key())
        program = self._programs.pop(key, None)
        if program is None:
            run = partial(self._run_module, call, given.fixed)
            program = jax.jit(_derived(run) if differentiated else run, compiler_options=dict(quick_compilation()))
        self._programs[key] = program
        if len(self._programs) > _KEPT:
            del self._programs[next(iter(self._programs))]
        return program

    def init(self, call: ModuleCall, seed: int) -> Mapping[str, np.ndarray]:
        """Parameters of a new module, in the dtypes that users get without asking for 64 bits."""
        return {name: np.asarray(array, np.float64) for name, array in flatten(self.new(call, seed)).items()}

    def save(self, config: Any, parameters: Mapping[str, np.ndarray], folder: Path) -> None:
        """Write a module with these parameters."""
        with jax.enable_x64(True):
            tree = parameter_tree(config)
            arrays = {name: jnp.asarray(array, tree[name].dtype) for name, array in parameters.items()}
            self.write(config, unflatten(arrays), folder)

    def load(self, folder: Path) -> tuple[Any, Mapping[str, np.ndarray]]:
        """Config and parameters of the module in a folder."""
        with jax.enable_x64(True):
            config, params = self.read(folder)
        return config, {name: np.asarray(array, np.float64) for name, array in flatten(params).items()}

    def run_golden(self, case: golden.GoldenCase) -> Result:
        """Run the module of a golden case as it is read from a folder, into which the library wrote it before.

        What the original wrote gets there by `read_original`, so both ways of reading stand behind every number.
        """
        with warnings.catch_warnings(), jax.enable_x64(True), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore", MigrationWarning)  # dropped options are the config package's own tests
            if case.is_original:
                config, params = self.read_original(case.config, case.parameters)
            else:
                config, arrays = case.module()
                params = unflatten({name: jnp.asarray(array) for name, array in arrays.items()})
            self.write(config, params, Path(folder))
            config, params = self.read(Path(folder))
            inputs = case.arguments()

            def run(params: Any, floats: dict[str, Any]) -> Any:
                return self.apply(config, params, *(floats.get(name, value) for name, value in inputs.items()))

            floats = {name: jnp.asarray(array) for name, array in inputs.items() if _is_float(array)}
            output, grads = _pulled(run, params, floats, case.inputs["cotangent"])
        found = {f"param/{name}": gradient for name, gradient in flatten(grads[0]).items()} | grads[1]
        gradients = {name: np.asarray(gradient) for name, gradient in found.items()}
        for name, recorded in case.gradients.items():
            if name in gradients and gradients[name].size == recorded.size:
                # the original stores orientations before heads, but reads the numbers in our order
                gradients[name] = gradients[name].reshape(recorded.shape)
        return Result(np.asarray(output), gradients=gradients, output_dtype=str(output.dtype))

    def _run_module(
        self, call: ModuleCall, fixed: Mapping[str, Any], params: Any, inputs: Any, cache: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Output and cache, everything by dotted names."""
        params, cache = unflatten(params), None if cache is None else unflatten(cache)
        ordered = [inputs.get(name, fixed.get(name)) for name in call.inputs]
        if call.method == "step":
            (x,) = ordered
            output, after = self.step(call.config, params, x, cache)
            return output, flatten(after)
        result = self.apply(call.config, params, *ordered, **{**call.keywords, "cache": cache})
        output, after = result if call.keywords.get("return_cache") else (result, {})
        return output, flatten(after)


class _Given:
    """The arrays of a call in the dtypes that it asks for, and what is a fixed part of its program.

    Args:
        adapter: the backend.
        call: the call.
    """

    def __init__(self, adapter: ModuleAdapter, call: ModuleCall) -> None:
        self.call = call
        tree = parameter_tree(call.config)
        self.params = {name: _as(array, tree[name].dtype) for name, array in call.parameters.items()}
        # the edges of a graph, and the borders of sequences, are known when a function is traced
        arrays = {name: a for name, a in call.inputs.items() if isinstance(a, np.ndarray) and name != "graph"}
        self.inputs = {name: _as(a, call.dtype) if _is_float(a) else a for name, a in arrays.items()}
        self.fixed = {name: value for name, value in call.inputs.items() if name not in arrays}
        self.cache = self._cache(adapter)

    def arrays(self) -> tuple[Any, ...]:
        """The arguments of the program."""
        arrays = self.params, self.inputs, self.cache
        return arrays if self.call.cotangent is None else (*arrays, self.call.cotangent)

    def fixed_key(self) -> Any:
        """What else the program depends on; jit itself looks at shapes and dtypes."""
        values = {**self.fixed, **{name: value for name, value in self.call.keywords.items() if name != "cache"}}
        return tuple((name, v.tobytes() if isinstance(v, np.ndarray) else v) for name, v in sorted(values.items()))

    def _cache(self, adapter: ModuleAdapter) -> Any:
        given = self.call.keywords.get("cache")
        if given is None:
            (first, *_) = self.inputs.values()
            return flatten(adapter.init_cache(self.call.config, len(first))) if self.call.method == "step" else None
        wide = "float64" if self.call.dtype == "float64" else "float32"
        return {name: _as(a, wide if name.endswith("state") else self.call.dtype) for name, a in given.items()}


def _derived(run: Callable[..., Any]) -> Callable[..., Any]:
    """The same with gradients of the output's product with the cotangent, by parameters and inputs."""

    def derived(params: Any, inputs: Any, cache: Any, cotangent: Any) -> Any:
        floats = {name: array for name, array in inputs.items() if jnp.issubdtype(array.dtype, jnp.inexact)}

        def forward(params: Any, floats: Any) -> Any:
            output, after = run(params, {**inputs, **floats}, cache)
            return output, after

        output, pull, after = jax.vjp(forward, params, floats, has_aux=True)
        by_params, by_inputs = pull(jnp.asarray(cotangent, output.dtype))
        return output, after, {**{f"param/{name}": grad for name, grad in by_params.items()}, **by_inputs}

    return derived


def _along(grads: Mapping[str, np.ndarray], directions: Mapping[str, np.ndarray]) -> float:
    """The derivative along all directions together."""
    return float(sum(np.sum(grads[name] * direction) for name, direction in directions.items()))


def _as(array: Any, dtype: str) -> np.ndarray:
    return np.asarray(array, jnp.dtype(dtype))


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _pulled(run: Callable[..., Any], params: Any, floats: Any, cotangent: np.ndarray) -> Any:
    """The output, and the gradients of its product with the cotangent."""

    def both(params: Any, floats: Any) -> Any:
        output, pull = jax.vjp(run, params, floats)
        return output, pull(jnp.asarray(cotangent))

    return jax.jit(both, compiler_options=dict(quick_compilation()))(params, floats)
