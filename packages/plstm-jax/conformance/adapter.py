"""How the conformance suite calls the JAX backend."""

import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import plstm_config
import plstm_jax
from plstm_config.original import MigrationWarning
from plstm_jax import ops
from plstm_jax.check import DTYPES, IMPLEMENTATIONS, QUICK_COMPILATION, available_devices, run_op
from plstm_testing import golden, reference
from plstm_testing.conformance import ModuleCall, OpCall, Result

# Most of the time goes into compiling. Many calls lead to the same program ("auto" to that of what it chooses), and
# several processes may share the work.
jax.config.update("jax_compilation_cache_dir", str(Path(tempfile.gettempdir()) / f"plstm-jax-{jax.__version__}"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
# Nothing may rely on what JAX promotes unasked.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


JAX_MODULES = bool(os.environ.get("PLSTM_JAX_MODULES"))


class JaxAdapter:
    """Runs ops and modules under jit."""

    name: str = "jax"
    ops: Mapping[str, Callable[..., Any]] = {name: getattr(ops, name) for name in IMPLEMENTATIONS}
    implementations: Mapping[str, Sequence[str]] = IMPLEMENTATIONS
    dtypes: Sequence[str] = tuple(dtype for dtype in DTYPES if dtype != "float16")
    devices: Sequence[str] = available_devices()
    # Its modules are held against the reference by the golden cases; the suite's groups of modules take several times
    # as long here as everything else, since every case is compiled: the environment variable
    # PLSTM_JAX_MODULES asks for them.
    module_classes: Sequence[type] = reference.module_classes() if JAX_MODULES else ()
    golden_kinds: Sequence[str] = tuple(
        dict.fromkeys(case.kind for case in golden.cases() if not case.kind.startswith("op_"))
    )

    def run_op(self, call: OpCall) -> Result:
        """Run one op, and its gradients where a cotangent is given."""
        return run_op(call, quick=True)

    def run_module(self, call: ModuleCall) -> Result:
        """Call a module as a function of its parameters, and differentiate where a cotangent is given."""
        with jax.enable_x64(True):
            params = plstm_jax.unflatten(
                {name: jnp.asarray(array, parameter.dtype) for name, array, parameter in _parameters(call)}
            )
            floats = {name: jnp.asarray(a, call.dtype) for name, a in call.inputs.items() if _is_float(a)}
            run = partial(_run_module, call)
            (output, cache), derivative = _call(run, call, params, floats)
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
            tree = plstm_config.parameter_tree(config)
            arrays = {name: jnp.asarray(array, tree[name].dtype) for name, array in parameters.items()}
            plstm_jax.save(config, plstm_jax.unflatten(arrays), folder)

    def load(self, folder: Path) -> tuple[Any, Mapping[str, np.ndarray]]:
        """Config and parameters of the module in a folder."""
        with jax.enable_x64(True):
            config, params = plstm_jax.load(folder)
        return config, {name: np.asarray(array, np.float64) for name, array in plstm_jax.flatten(params).items()}

    def run_golden(self, case: golden.GoldenCase) -> Result:
        """Run the module of a golden case, and differentiate it."""
        with warnings.catch_warnings(), jax.enable_x64(True):
            warnings.simplefilter("ignore", MigrationWarning)  # dropped options are the config package's own tests
            if case.is_original:
                config, params = plstm_jax.load_original(case.config, case.parameters)
            else:
                config, arrays = case.module()
                params = plstm_jax.unflatten({name: jnp.asarray(array) for name, array in arrays.items()})
            inputs = case.arguments()

            def run(params: Any, floats: dict[str, Any]) -> Any:
                return plstm_jax.apply(config, params, *(floats.get(name, value) for name, value in inputs.items()))

            floats = {name: jnp.asarray(array) for name, array in inputs.items() if _is_float(array)}
            output, grads = _pulled(run, params, floats, case.inputs["cotangent"])
        found = {f"param/{name}": gradient for name, gradient in plstm_jax.flatten(grads[0]).items()} | grads[1]
        gradients = {name: np.asarray(gradient) for name, gradient in found.items()}
        for name, recorded in case.gradients.items():
            if name in gradients and gradients[name].size == recorded.size:
                # the original stores orientations before heads, but reads the numbers in our order
                gradients[name] = gradients[name].reshape(recorded.shape)
        return Result(np.asarray(output), gradients=gradients, output_dtype=str(output.dtype))


def _parameters(call: ModuleCall) -> list[tuple[str, np.ndarray, Any]]:
    tree = plstm_config.parameter_tree(call.config)
    return [(name, array, tree[name]) for name, array in call.parameters.items()]


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _run_module(call: ModuleCall, params: Any, floats: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Output and cache by dotted names."""
    inputs = {name: floats.get(name, value) for name, value in call.inputs.items()}
    given = call.keywords.get("cache")
    cache = None if given is None else plstm_jax.unflatten({name: _cached(name, a, call) for name, a in given.items()})
    if call.method == "step":
        (x,) = inputs.values()
        start = plstm_jax.init_cache(call.config, len(x)) if cache is None else cache
        output, after = plstm_jax.step(call.config, params, jnp.asarray(x), start)
        return output, plstm_jax.flatten(after)
    keywords = {**call.keywords, "cache": cache}
    result = plstm_jax.apply(call.config, params, *inputs.values(), **keywords)
    output, after = result if call.keywords.get("return_cache") else (result, {})
    return output, plstm_jax.flatten(after)


def _cached(name: str, array: np.ndarray, call: ModuleCall) -> Any:
    return jnp.asarray(array, "float32" if name.endswith("state") and call.dtype != "float64" else call.dtype)


def _call(run: Callable[..., Any], call: ModuleCall, params: Any, floats: Any) -> tuple[Any, float | None]:
    """What comes out, and the derivative of its product with the cotangent along the call's directions."""
    if call.cotangent is None:
        return jax.jit(run, compiler_options=dict(QUICK_COMPILATION))(params, floats), None
    directions = {name: jnp.asarray(array) for name, array in call.directions.items()}
    zeros = {name: jnp.zeros_like(array) for name, array in floats.items()}
    along_floats = {name: directions.get(name, zero) for name, zero in zeros.items()}
    along = plstm_jax.unflatten(
        {n: directions.get(f"param/{n}", jnp.zeros_like(a)) for n, a in plstm_jax.flatten(params).items()}
    )

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


adapter = JaxAdapter()
