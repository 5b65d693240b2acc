"""How the conformance suite calls the nnx backend."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax import nnx

import plstm_nnx
from plstm_jax.conformance import ModuleAdapter, set_up

set_up()


def held(config: Any, params: Any) -> Any:
    """A module with these parameters, in evaluation mode."""
    module = plstm_nnx.build(config, rngs=nnx.Rngs(0), params=params)
    module.eval()
    return module


class NnxAdapter(ModuleAdapter):
    """Builds modules around the parameters that a call names, also where these are traced."""

    name: str = "nnx"

    def new(self, call: Any, seed: int) -> Any:
        """Draw the parameters of a new module."""
        return plstm_nnx.get_params(plstm_nnx.build(call.config, rngs=nnx.Rngs(seed)))

    def apply(self, config: Any, params: Any, *inputs: Any, **keywords: Any) -> Any:
        """Call a module that holds these parameters."""
        return held(config, params)(*inputs, **keywords)

    def step(self, config: Any, params: Any, x: Any, cache: Any) -> Any:
        """Advance its sequences by one step."""
        return held(config, params).step(x, cache)

    def init_cache(self, config: Any, batch_size: int) -> Any:
        """Make the cache of a module's sequences that have not begun."""
        return nnx.eval_shape(lambda: plstm_nnx.build(config, rngs=nnx.Rngs(0))).init_cache(batch_size)

    def write(self, config: Any, params: Any, folder: Path) -> None:
        """Write a module."""
        plstm_nnx.save_pretrained(held(config, params), folder)

    def read(self, folder: Path) -> Any:
        """Read a module."""
        module = plstm_nnx.from_pretrained(folder)
        return module.config, plstm_nnx.get_params(module)

    def read_original(self, mapping: Any, state_dict: Mapping[str, Any]) -> Any:
        """Read a module of the original project."""
        module = plstm_nnx.load_original(mapping, state_dict)
        return module.config, plstm_nnx.get_params(module)


adapter = NnxAdapter()
