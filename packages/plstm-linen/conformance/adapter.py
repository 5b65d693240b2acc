"""How the conformance suite calls the linen backend."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

import plstm_linen
from plstm_jax.check import quick_compilation
from plstm_jax.conformance import ModuleAdapter, set_up
from plstm_jax.parameters import flatten, unflatten
from plstm_linen.names import from_canonical, to_canonical

set_up()


def variables(config: Any, params: Any) -> Any:
    """The variables of a config's module from canonical parameters."""
    return {"params": from_canonical(config, flatten(params))}


class LinenAdapter(ModuleAdapter):
    """Applies modules to variables with the parameters that a call names."""

    name: str = "linen"
    _draws: Mapping[Any, Callable[[Any], Any]] = {}

    def new(self, call: Any, seed: int) -> Any:
        """Draw the parameters of a new module."""
        if call.config not in self._draws:
            self._draws = {call.config: _drawing(call)}  # of the last config only: each is asked for several seeds
        made = self._draws[call.config](jax.random.key(seed))
        return unflatten(to_canonical(made.get("params", {})))

    def apply(self, config: Any, params: Any, *inputs: Any, **keywords: Any) -> Any:
        """Call a module that holds these parameters."""
        return plstm_linen.build(config).apply(variables(config, params), *inputs, **keywords)

    def step(self, config: Any, params: Any, x: Any, cache: Any) -> Any:
        """Advance its sequences by one step."""
        return plstm_linen.build(config).apply(variables(config, params), x, cache, method="step")

    def init_cache(self, config: Any, batch_size: int) -> Any:
        """Make the cache of a module's sequences that have not begun."""
        return plstm_linen.build(config).init_cache(batch_size)

    def write(self, config: Any, params: Any, folder: Path) -> None:
        """Write a module."""
        plstm_linen.save_pretrained(plstm_linen.build(config), variables(config, params), folder)

    def read(self, folder: Path) -> Any:
        """Read a module."""
        return _canonical(plstm_linen.from_pretrained(folder))

    def read_original(self, mapping: Any, state_dict: Mapping[str, Any]) -> Any:
        """Read a module of the original project."""
        return _canonical(plstm_linen.load_original(mapping, state_dict))


def _drawing(call: Any) -> Callable[[Any], Any]:
    """A program that draws; of the call that comes with it nothing is left but shapes."""
    module = plstm_linen.build(call.config)
    return jax.jit(lambda key: module.init(key, *call.inputs.values()), compiler_options=dict(quick_compilation()))


def _canonical(made: Any) -> Any:
    module, read = made
    return module.config, unflatten(to_canonical(read["params"]))


adapter = LinenAdapter()
