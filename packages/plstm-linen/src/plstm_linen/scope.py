"""How formulas reach what a linen module owns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from flax import linen as nn
from jax import Array

from plstm_jax.context import Cache, Context
from plstm_jax.dtypes import floating
from plstm_jax.formulas import Result, Scope
from plstm_jax.parameters import split_tree, stack_trees
from plstm_jax.sharding import LAYERS


class ModuleScope(Scope):
    """A bound linen module as formulas see it.

    Args:
        module: the module.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def get(self, name: str) -> Array | None:
        """A parameter in its canonical layout, or None if the config switches it off."""
        found: Array | None = attrgetter(name)(self._module)
        return found

    def call(self, name: str, x: Array, context: Context) -> Result:
        """Run a submodule under a context."""
        result: Result = attrgetter(name)(self._module)(x, context=context)
        return result

    def map(self, name: str, x: Array) -> Array:
        """Run a submodule that needs no context, called as by users, so that what is captured is its output."""
        result: Array = attrgetter(name)(self._module)(x)
        return result

    def key(self) -> Array | None:
        """A key for random numbers, another one at every call of this module.

        Raises:
            ValueError: if there is none.
        """
        if not self._module.has_rng("dropout"):
            raise ValueError(
                'rngs: expected a PRNG key, since paths are dropped in training (rngs={"dropout": key}), got None'
            )
        return self._module.make_rng("dropout")

    def repeat(
        self, name: str, x: Array, contexts: Sequence[Context], *, scan: bool = False
    ) -> tuple[Array, list[Cache]]:
        """Run repeated submodules one after the other; how they are held decides whether by a scan."""
        blocks = attrgetter(name)(self._module)
        if isinstance(blocks, nn.Module):
            return _scan(blocks, x, contexts)
        caches = []
        for block, context in zip(blocks, contexts, strict=True):
            x, cache = _run(block, x, context)
            caches.append(cache)
        return x, caches


def _run(block: nn.Module, x: Array, context: Context) -> Result:
    """One block, on demand without keeping its activations."""

    def run(block: nn.Module, x: Array, cache: Any) -> Any:
        return block(x, context=replace(context, cache=cache))

    result: Result = (nn.remat(run) if context.remat else run)(block, x, context.cache)
    return result


def _scan(blocks: nn.Module, x: Array, contexts: Sequence[Context]) -> tuple[Array, list[Cache]]:
    """Stacked blocks, whose contexts differ in their caches only, by a loop that is compiled once."""

    def run(block: nn.Module, x: Array, cache: Any) -> Any:
        return _run(block, x, replace(contexts[0], cache=cache))

    loop = nn.scan(
        run,
        variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True, "dropout": True},
        length=len(contexts),
        metadata_params={nn.PARTITION_NAME: LAYERS},
    )
    # a loop hands on what it was given, and blocks answer integers in their own dtype
    first = floating(x, blocks.config.dtype)  # type: ignore[attr-defined]
    x, caches = loop(blocks, first, stack_trees([context.cache for context in contexts]))
    return x, split_tree(caches, len(contexts))
