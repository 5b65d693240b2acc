"""How the conformance suite calls the JAX backend."""

import json
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import plstm_jax
from plstm_config.original import MigrationWarning
from plstm_config.topology import DagTopology
from plstm_jax import ops
from plstm_jax.check import DTYPES, IMPLEMENTATIONS, QUICK_COMPILATION, available_devices, run_op
from plstm_testing import golden
from plstm_testing.conformance import OpCall, Result

# Most of the time goes into compiling. Many calls lead to the same program ("auto" to that of what it chooses), and
# several processes may share the work.
jax.config.update("jax_compilation_cache_dir", str(Path(tempfile.gettempdir()) / f"plstm-jax-{jax.__version__}"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
# Nothing may rely on what JAX promotes unasked.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


class JaxAdapter:
    """Runs ops and modules under jit."""

    name: str = "jax"
    ops: Mapping[str, Callable[..., Any]] = {name: getattr(ops, name) for name in IMPLEMENTATIONS}
    implementations: Mapping[str, Sequence[str]] = IMPLEMENTATIONS
    dtypes: Sequence[str] = tuple(dtype for dtype in DTYPES if dtype != "float16")
    devices: Sequence[str] = available_devices()
    golden_kinds: Sequence[str] = tuple(
        dict.fromkeys(case.kind for case in golden.cases() if not case.kind.startswith("op_"))
    )

    def run_op(self, call: OpCall) -> Result:
        """Run one op, and its gradients where a cotangent is given."""
        return run_op(call, quick=True)

    def run_module(self, case: golden.GoldenCase) -> Result:
        """Run the module of a golden case, and differentiate it."""
        with warnings.catch_warnings(), jax.enable_x64(True):
            warnings.simplefilter("ignore", MigrationWarning)  # dropped options are the config package's own tests
            config, params = plstm_jax.load_original(case.config, case.parameters)
            inputs = {name: array for name, array in case.inputs.items() if not name.startswith("cotangent")}
            graph = _graph(case)

            def run(params: Any, floats: dict[str, Any]) -> Any:
                x, *more = (floats.get(name, array) for name, array in inputs.items())
                return plstm_jax.apply(config, params, jnp.asarray(x), graph, *more)

            floats = {name: jnp.asarray(array) for name, array in inputs.items() if array.dtype.kind == "f"}
            output, grads = _pulled(run, params, floats, case.inputs["cotangent"])
        found = {f"param/{name}": gradient for name, gradient in plstm_jax.flatten(grads[0]).items()} | grads[1]
        gradients = {name: np.asarray(gradient) for name, gradient in found.items()}
        for name, recorded in case.gradients.items():
            if name in gradients and gradients[name].size == recorded.size:
                # the original stores orientations before heads, but reads the numbers in our order
                gradients[name] = gradients[name].reshape(recorded.shape)
        return Result(np.asarray(output), gradients=gradients, output_dtype=str(output.dtype))


def _pulled(run: Callable[..., Any], params: Any, floats: Any, cotangent: np.ndarray) -> Any:
    """The output, and the gradients of its product with the cotangent."""

    def both(params: Any, floats: Any) -> Any:
        output, pull = jax.vjp(run, params, floats)
        return output, pull(jnp.asarray(cotangent))

    return jax.jit(both, compiler_options=dict(QUICK_COMPILATION))(params, floats)


def _graph(case: golden.GoldenCase) -> DagTopology | None:
    if case.kind != "layer_graph_edge":
        return None
    edges = json.loads(case.about["note"])["edges_in_feature_order"]
    return DagTopology.from_edges(len(case.inputs["node_features"]), edges)


adapter = JaxAdapter()
