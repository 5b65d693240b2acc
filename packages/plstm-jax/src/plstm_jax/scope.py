"""The scope of plain JAX: parameters in nested mappings."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from plstm_config.base import Config
from plstm_config.parameters import Child, Repeated
from plstm_jax.context import Cache, Context
from plstm_jax.formulas import Result, Scope, formula_of
from plstm_jax.parameters import block_of, stack_blocks


class TreeScope(Scope):
    """A module whose parameters stand in nested mappings, one level for each part of the dotted names.

    Those of repeated modules stand under their numbers, or are stacked (`plstm_jax.stack_blocks`).

    Args:
        config: config of the module.
        params: its parameters, those of submodules in mappings of their own.
        key: for dropped paths, or None.
    """

    def __init__(self, config: Config, params: Mapping[str, Any], key: Array | None = None) -> None:
        self._config = config
        self._params = params
        self._key = key
        self._calls: Counter[str] = Counter()

    @cached_property
    def _children(self) -> dict[str, Child]:
        return self._config.children()

    def get(self, name: str) -> Array | None:
        """A parameter in its canonical layout, or None if the config switches it off."""
        found = _find(self._params, name)
        return None if found is None else jnp.asarray(found)  # numpy's arrays cannot be read at traced places

    def call(self, name: str, x: Array, context: Context) -> Result:
        """Run a submodule under a context; see `Scope.call`."""
        first, _, rest = name.partition(".")
        child, params = self._children[first], self._params.get(first, {})
        if isinstance(child, Repeated):
            index, _, rest = rest.partition(".")
            first, child, params = f"{first}.{index}", child.config, block_of(params, int(index))
        if not isinstance(child, Config):
            raise KeyError(name)
        inner = TreeScope(child, params, self._child_key(first))
        return inner.call(rest, x, context) if rest else formula_of(child)(child, inner, x, context)

    def repeat(
        self, name: str, x: Array, contexts: Sequence[Context], *, scan: bool = False
    ) -> tuple[Array, list[Cache]]:
        """Run repeated submodules one after the other; see `Scope.repeat`."""
        first, _, rest = name.partition(".")
        child = self._children[first]
        if rest and isinstance(child, Config):
            inner = TreeScope(child, self._params.get(first, {}), self._child_key(first))
            return inner.repeat(rest, x, contexts, scan=scan)
        if not isinstance(child, Repeated):
            raise KeyError(name)
        blocks = self._params[first]
        keys = [self._child_key(f"{first}.{index}") for index in range(len(contexts))]
        if scan and len(contexts) > 1:
            return _scanned(child.config, stack_blocks({first: blocks})[first], keys, x, contexts)
        caches = []
        for index, (key, context) in enumerate(zip(keys, contexts, strict=True)):
            x, cache = _block(child.config, context)(x, block_of(blocks, index), key, context.cache)
            caches.append(cache)
        return x, caches

    def key(self) -> Array | None:
        """A key of this module for random numbers, or None where there is none."""
        return self._key

    def _child_key(self, name: str) -> Array | None:
        """A key of its own for every call: the two branches of a block share their drop path."""
        if self._key is None:
            return None
        self._calls[name] += 1
        return jax.random.fold_in(jax.random.fold_in(self._key, zlib.crc32(name.encode())), self._calls[name])


def _block(config: Config, context: Context) -> Callable[..., Result]:
    """One of repeated submodules as a function of arrays alone."""

    def run(x: Array, params: Any, key: Array | None, cache: Any) -> Result:
        return formula_of(config)(config, TreeScope(config, params, key), x, replace(context, cache=cache))

    return jax.checkpoint(run) if context.remat else run


def _scanned(
    config: Config, blocks: Any, keys: list[Array | None], x: Array, contexts: Sequence[Context]
) -> tuple[Array, list[Cache]]:
    """Run equal submodules, whose parameters are stacked, by a loop that is compiled once."""
    run = _block(config, contexts[0])

    def block(x: Array, own: tuple[Any, Array | None], cache: Any) -> tuple[Array, tuple[Cache, None]]:
        x, after = run(x, *own, cache)
        return x, (after, None)

    stacked = jax.tree.map(lambda *each: jnp.stack(each), *keys)
    x, caches, _ = scan_blocks(block, x, (blocks, stacked), [context.cache for context in contexts])
    return x, caches


def scan_blocks(
    run: Callable[[Array, Any, Any], tuple[Array, tuple[Cache, Any]]], x: Array, blocks: Any, caches: Sequence[Any]
) -> tuple[Array, list[Cache], Any]:
    """Run equal blocks by a loop that is compiled once; for every library of modules.

    Args:
        run: from an input, what a block holds and its cache or None to the output, the new cache, and whatever else
            is to be kept of each block.
        x: input of the first [B, ..., D].
        blocks: what they hold: a tree of arrays whose first axis counts the blocks.
        caches: one for each, or None for each.

    Returns:
        The output of the last, the caches of all, and what else was kept, stacked.
    """
    stacked = jax.tree.map(lambda *each: jnp.stack(each), *caches)
    first = jax.tree.map(lambda array: array[0], (blocks, stacked))
    output, _ = jax.eval_shape(run, x, *first)  # another dtype than that of x only where x are integers
    x, (after, kept) = lax.scan(lambda x, own: run(x, *own), x.astype(output.dtype), (blocks, stacked))
    return x, [jax.tree.map(lambda leaf, index=index: leaf[index], after) for index in range(len(caches))], kept


def _find(params: Mapping[str, Any], name: str) -> Any:
    found: Any = params
    for part in name.split("."):
        if part not in found:
            return None
        found = found[part]
    return found
