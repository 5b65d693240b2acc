"""How the conformance suite calls the JAX backend."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

import plstm_jax
from plstm_jax import ops
from plstm_jax.check import DTYPES, IMPLEMENTATIONS, run_op
from plstm_jax.conformance import ModuleAdapter, set_up
from plstm_testing.conformance import OpCall, Result

set_up()


class JaxAdapter(ModuleAdapter):
    """Runs ops and modules under jit."""

    name: str = "jax"
    ops: Mapping[str, Callable[..., Any]] = {name: getattr(ops, name) for name in IMPLEMENTATIONS}
    implementations: Mapping[str, Sequence[str]] = IMPLEMENTATIONS
    dtypes: Sequence[str] = tuple(dtype for dtype in DTYPES if dtype != "float16")

    def run_op(self, call: OpCall) -> Result:
        """Run one op, and its gradients where a cotangent is given."""
        return run_op(call, quick=True)

    def new(self, call: Any, seed: int) -> Any:
        """Draw the parameters of a new module."""
        return plstm_jax.init(call.config, jax.random.key(seed))

    def apply(self, config: Any, params: Any, *inputs: Any, **keywords: Any) -> Any:
        """Call a module that holds these parameters."""
        return plstm_jax.apply(config, params, *inputs, **keywords)

    def step(self, config: Any, params: Any, x: Any, cache: Any) -> Any:
        """Advance its sequences by one step."""
        return plstm_jax.step(config, params, x, cache)

    def init_cache(self, config: Any, batch_size: int) -> Any:
        """Make the cache of a module's sequences that have not begun."""
        return plstm_jax.init_cache(config, batch_size)

    def write(self, config: Any, params: Any, folder: Path) -> None:
        """Write a module."""
        plstm_jax.save(config, params, folder)

    def read(self, folder: Path) -> Any:
        """Read a module."""
        return plstm_jax.load(folder)

    def read_original(self, mapping: Any, state_dict: Mapping[str, Any]) -> Any:
        """Read a module of the original project."""
        return plstm_jax.load_original(mapping, state_dict)


adapter = JaxAdapter()
