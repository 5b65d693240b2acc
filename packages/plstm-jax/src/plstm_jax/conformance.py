"""How the conformance suite calls modules in JAX, whatever library holds their parameters."""

from __future__ import annotations

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
from plstm_jax.check import QUICK_COMPILATION, available_devices
from plstm_jax.parameters import Params, flatten, unflatten
from plstm_testing import golden, reference
from plstm_testing.conformance import ModuleCall, OpCall, Result


def set_up() -> None:
    """Keep compiled programs on disk, and let no backend rely on what JAX promotes unasked.

    Most of the time goes into compiling. Many calls lead to the same program ("auto" to that of what it chooses), and
    several processes may share the work.
    """
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
    whether its modules hold and pass on what they should.
    """

    ops: Mapping[str, Callable[..., Any]] = {}
    implementations: Mapping[str, Sequence[str]] = {}
    dtypes: Sequence[str] = ("float64",)
    devices: Sequence[str] = available_devices()
    module_classes: Sequence[type] = reference.module_classes()
    golden_kinds: Sequence[str] = tuple(
        dict.fromkeys(case.kind for case in golden.cases() if not case.kind.startswith("op_"))
    )

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

    def run_op(self, call: OpCall) -> Result:
        """Not asked for: the ops are those of plstm-jax."""
        raise NotImplementedError(call.op)

    def run_module(self, call: ModuleCall) -> Result:
        """Call a module as a function of its parameters, and differentiate where a cotangent is given."""
        with jax.enable_x64(True):
            tree = parameter_tree(call.config)
            params = unflatten({name: jnp.asarray(a, tree[name].dtype) for name, a in call.parameters.items()})
            floats = {name: jnp.asarray(a, call.dtype) for name, a in call.inputs.items() if _is_float(a)}
            (output, cache), derivative = _call(partial(self._run_module, call), call, params, floats)
        states = {str(array.dtype) for name, array in cache.items() if name.endswith("state")}
        return Result(
            np.asarray(output, np.float64),
            output_dtype=str(output.dtype),
            state_dtype="+".join(sorted(states)) or None,
            cache={name: np.asarray(array, np.float64) for name, array in cache.items()},
            derivative=derivative,
        )

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
        """Run the module of a golden case, and differentiate it."""
        with warnings.catch_warnings(), jax.enable_x64(True):
            warnings.simplefilter("ignore", MigrationWarning)  # dropped options are the config package's own tests
            if case.is_original:
                config, params = self.read_original(case.config, case.parameters)
            else:
                config, arrays = case.module()
                params = unflatten({name: jnp.asarray(array) for name, array in arrays.items()})
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

    def _run_module(self, call: ModuleCall, params: Any, floats: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Output and cache by dotted names."""
        inputs = {name: floats.get(name, value) for name, value in call.inputs.items()}
        given = call.keywords.get("cache")
        cache = None if given is None else unflatten({name: _cached(name, a, call) for name, a in given.items()})
        if call.method == "step":
            (x,) = inputs.values()
            start = self.init_cache(call.config, len(x)) if cache is None else cache
            output, after = self.step(call.config, params, jnp.asarray(x), start)
            return output, flatten(after)
        result = self.apply(call.config, params, *inputs.values(), **{**call.keywords, "cache": cache})
        output, after = result if call.keywords.get("return_cache") else (result, {})
        return output, flatten(after)


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _cached(name: str, array: np.ndarray, call: ModuleCall) -> Any:
    return jnp.asarray(array, "float32" if name.endswith("state") and call.dtype != "float64" else call.dtype)


def _call(run: Callable[..., Any], call: ModuleCall, params: Any, floats: Any) -> tuple[Any, float | None]:
    """What comes out, and the derivative of its product with the cotangent along the call's directions."""
    if call.cotangent is None:
        return jax.jit(run, compiler_options=dict(QUICK_COMPILATION))(params, floats), None
    directions = {name: jnp.asarray(array) for name, array in call.directions.items()}
    zeros = {name: jnp.zeros_like(array) for name, array in floats.items()}
    along_floats = {name: directions.get(name, zero) for name, zero in zeros.items()}
    along = unflatten({n: directions.get(f"param/{n}", jnp.zeros_like(a)) for n, a in flatten(params).items()})

    def both(params: Any, floats: Any) -> Any:
        output, pull, cache = jax.vjp(run, params, floats, has_aux=True)
        return output, pull(jnp.asarray(call.cotangent, output.dtype)), cache

    output, grads, cache = jax.jit(both, compiler_options=dict(QUICK_COMPILATION))(params, floats)
    products = jax.tree.map(
        lambda gradient, direction: float(jnp.sum(gradient * direction)), grads, (along, along_floats)
    )
    return (output, cache), float(sum(jax.tree.leaves(products)))


def _pulled(run: Callable[..., Any], params: Any, floats: Any, cotangent: np.ndarray) -> Any:
    """The output, and the gradients of its product with the cotangent."""

    def both(params: Any, floats: Any) -> Any:
        output, pull = jax.vjp(run, params, floats)
        return output, pull(jnp.asarray(cotangent))

    return jax.jit(both, compiler_options=dict(QUICK_COMPILATION))(params, floats)
