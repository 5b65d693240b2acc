"""How the conformance suite calls the JAX backend."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from plstm_jax import ops
from plstm_jax.check import DTYPES, IMPLEMENTATIONS, available_devices, run_op
from plstm_testing.conformance import OpCall, Result

# Most of the time goes into compiling. Many calls lead to the same program ("auto" to that of what it chooses), and
# several processes may share the work.
jax.config.update("jax_compilation_cache_dir", str(Path(tempfile.gettempdir()) / f"plstm-jax-{jax.__version__}"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


class JaxAdapter:
    """Runs ops under jit; this package has no modules."""

    name: str = "jax"
    ops: Mapping[str, Callable[..., Any]] = {name: getattr(ops, name) for name in IMPLEMENTATIONS}
    implementations: Mapping[str, Sequence[str]] = IMPLEMENTATIONS
    dtypes: Sequence[str] = tuple(dtype for dtype in DTYPES if dtype != "float16")
    devices: Sequence[str] = available_devices()
    module_classes: Sequence[type] = ()
    golden_kinds: Sequence[str] = ()

    def run_op(self, call: OpCall) -> Result:
        """Run one op, and its gradients where a cotangent is given."""
        return run_op(call, quick=True)


adapter = JaxAdapter()
