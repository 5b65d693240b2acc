"""How formulas reach what a module holds."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from flax import nnx
from jax import Array

from plstm_jax.context import Cache, Context
from plstm_jax.formulas import Result, Scope
from plstm_nnx.repeated import run_repeated

if TYPE_CHECKING:
    from plstm_nnx.module import Module


class ModuleScope(Scope):
    """The scope of a module whose parameters and submodules are its attributes.

    Args:
        module: the module.
    """

    def __init__(self, module: Module) -> None:
        self._module = module

    def get(self, name: str) -> Array | None:
        """A parameter in its canonical layout, or None if the config switches it off."""
        found = attrgetter(name)(self._module)
        return found[...] if isinstance(found, nnx.Variable) else found

    def call(self, name: str, x: Array, context: Context) -> Result:
        """Run a submodule under a context; one that a user put in its place is given the input alone."""
        found = attrgetter(name)(self._module)
        return found.run(x, context) if hasattr(found, "run") else (found(x), {})

    def repeat(
        self, name: str, x: Array, contexts: Sequence[Context], *, scan: bool = False
    ) -> tuple[Array, list[Cache]]:
        """Run repeated submodules; how they are held decides whether by a scan."""
        stack, _, last = name.rpartition(".")
        holder: Any = attrgetter(stack)(self._module) if stack else self._module
        return run_repeated(getattr(holder, last), x, contexts, remat=holder.remat)

    def key(self) -> Array | None:
        """A key for random numbers, another one at every call; None for modules that draw none."""
        stream = getattr(self._module, "rngs", None)
        return None if stream is None else stream()
