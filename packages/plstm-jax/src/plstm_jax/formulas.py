"""From configs to formulas: what a module computes, apart from where its parameters are kept.

A formula is a function ``(config, scope, x, context) -> (y, cache)``, one for each config class. It reaches what the
module owns through its scope alone, so the same formula serves plain JAX and every library of modules.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeAlias, TypeVar

import jax
from jax import Array

from plstm_config.registry import Registry
from plstm_jax.context import Cache, Context

Result: TypeAlias = tuple[Array, Cache]
Formula: TypeAlias = Callable[[Any, "Scope", Array, Context], Result]
Map: TypeAlias = Callable[[Any, "Scope", Array], Array]
_F = TypeVar("_F", bound=Callable[..., Any])

_REGISTRY: Registry[Result] = Registry(*(f"plstm_jax.{name}" for name in ("layers", "blocks", "models")))


class Scope(ABC):
    """What a module owns. Names may be dotted: parts of parts, and ``blocks.0`` for the first of repeated parts."""

    @abstractmethod
    def get(self, name: str) -> Array | None:
        """A parameter in its canonical layout, or None if the config switches it off."""

    @abstractmethod
    def call(self, name: str, x: Array, context: Context) -> Result:
        """Run a submodule under a context.

        Args:
            name: of the submodule.
            x: its input, of the shape that it takes.
            context: its own.

        Returns:
            Its output and its cache.
        """

    @abstractmethod
    def key(self) -> Array | None:
        """A key for random numbers, another one at every call of this module; None where there is none."""

    def repeat(
        self, name: str, x: Array, contexts: Sequence[Context], *, scan: bool = False
    ) -> tuple[Array, list[Cache]]:
        """Run repeated submodules one after the other, each under its context.

        Args:
            name: of the repeated submodules, such as "blocks".
            x: input of the first, of the shape that it takes.
            contexts: one for each.
            scan: whether they should be compiled once for all. Needs contexts that differ in their caches only. Nothing
                but compilation depends on it, so a scope may ignore it.

        Returns:
            The output of the last, and the caches of all.
        """
        caches = []
        for index, context in enumerate(contexts):
            x, cache = self.call(f"{name}.{index}", x, context)
            caches.append(cache)
        return x, caches

    def need(self, name: str) -> Array:
        """A parameter that the config does not switch off.

        Raises:
            ValueError: if it is missing.
        """
        found = self.get(name)
        if found is None:
            raise ValueError(f"params: expected an array {name!r}, got none")
        return found

    def map(self, name: str, x: Array) -> Array:
        """Run a submodule that needs no context."""
        return self.call(name, x, Context())[0]


def register(config_class: type) -> Callable[[_F], _F]:
    """Let a function be the formula of configs of one class.

    Args:
        config_class: the config class; exactly this one, not those derived from it.

    Returns:
        A decorator that returns the function unchanged.
    """

    def decorate(function: _F) -> _F:
        _REGISTRY.register(config_class)(_with_own_promotion(function))
        return function

    return decorate


def _with_own_promotion(function: Formula) -> Formula:
    """The formula under JAX's default promotion: biases broadcast, whatever the caller forbids in its own code."""

    @wraps(function)
    def formula(config: Any, scope: Scope, x: Array, context: Context) -> Result:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return function(config, scope, x, context)

    return formula


def register_map(*config_classes: type) -> Callable[[_F], _F]:
    """Let a function ``(config, scope, x) -> y`` be the formula of configs that need no context.

    Args:
        config_classes: the config classes.

    Returns:
        A decorator that returns the function unchanged.
    """

    def decorate(function: _F) -> _F:
        @wraps(function)
        def formula(config: Any, scope: Scope, x: Array, context: Context) -> Result:
            return function(config, scope, x), {}

        for config_class in config_classes:
            register(config_class)(formula)
        return function

    return decorate


def formula_of(config: object) -> Formula:
    """The formula of a config.

    Args:
        config: a config of a registered class.

    Returns:
        The formula.

    Raises:
        TypeError: if there is none for its class; the message lists those that have one.
    """
    return _REGISTRY.find(config)
