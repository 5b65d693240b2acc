"""The scope of plain JAX: parameters in nested mappings."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import jax
from jax import Array

from plstm_config.base import Config
from plstm_config.parameters import Child, Repeated
from plstm_jax.context import Context
from plstm_jax.formulas import Result, Scope, formula_of


class TreeScope(Scope):
    """A module whose parameters stand in nested mappings, one level for each part of the dotted names.

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
        return _find(self._params, name)

    def call(self, name: str, x: Array, context: Context) -> Result:
        """Run a submodule under a context."""
        first, _, rest = name.partition(".")
        child, params = self._children[first], self._params.get(first, {})
        if isinstance(child, Repeated):
            index, _, rest = rest.partition(".")
            first, child, params = f"{first}.{index}", child.config, params.get(index, {})
        if not isinstance(child, Config):
            raise KeyError(name)
        inner = TreeScope(child, params, self._child_key(first))
        return inner.call(rest, x, context) if rest else formula_of(child)(child, inner, x, context)

    def key(self) -> Array | None:
        """A key of this module for random numbers, or None where there is none."""
        return self._key

    def _child_key(self, name: str) -> Array | None:
        """A key of its own for every call: the two branches of a block share their drop path."""
        if self._key is None:
            return None
        self._calls[name] += 1
        return jax.random.fold_in(jax.random.fold_in(self._key, zlib.crc32(name.encode())), self._calls[name])


def _find(params: Mapping[str, Any], name: str) -> Any:
    found: Any = params
    for part in name.split("."):
        if part not in found:
            return None
        found = found[part]
    return found
