"""From configs to the classes of one backend: what stands behind every backend's `register` and `build`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Generic, TypeVar

M = TypeVar("M")
Made = TypeVar("Made", bound=Callable[..., Any])


class Registry(Generic[M]):
    """The module classes of a backend by their config classes.

    Args:
        homes: modules in which classes register themselves, imported when the first one is looked for.

    Examples:
        >>> import plstm_config
        >>> from plstm_config.registry import Registry
        >>> registry: Registry[str] = Registry()
        >>> @registry.register(plstm_config.RMSNormConfig)
        ... def norm(config):
        ...     return f"a norm of {config.input_dim} features"
        >>> registry.find(plstm_config.RMSNormConfig(input_dim=4))(plstm_config.RMSNormConfig(input_dim=4))
        'a norm of 4 features'
    """

    def __init__(self, *homes: str) -> None:
        self.classes: dict[type, Callable[..., M]] = {}
        self._homes = homes

    def register(self, config_class: type) -> Callable[[Made], Made]:
        """Let `find` return the decorated module class for configs of one class.

        Args:
            config_class: the config class; exactly this one, not those derived from it.

        Returns:
            A class decorator that returns the class unchanged.

        Raises:
            ValueError: if another module class already holds this config class.
        """

        def decorate(module_class: Made) -> Made:
            known = self.classes.setdefault(config_class, module_class)
            if known is not module_class:
                name = getattr(module_class, "__name__", str(module_class))
                held = f"{config_class.__name__}, held by {known}"
                raise ValueError(f"config_class: expected one that is not registered yet, got {held}, for {name}")
            return module_class

        return decorate

    def names(self) -> tuple[str, ...]:
        """The names of all registered config classes, sorted."""
        return tuple(sorted(config_class.__name__ for config_class in self.classes))

    def find(self, config: object) -> Callable[..., M]:
        """The module class of a config.

        Args:
            config: a config of a registered class.

        Returns:
            What was registered for its class.

        Raises:
            TypeError: if there is nothing; the message lists what is registered, or points to the presets.
        """
        for home in self._homes:
            import_module(home)
        found = self.classes.get(type(config))
        if found is None:
            hint = f"; {_preset_hint(config)}" if isinstance(config, str) else ""
            raise TypeError(
                f"config: expected an instance of one of {', '.join(self.names())}, got {type(config).__name__}{hint}"
            )
        return found


def _preset_hint(name: str) -> str:
    from plstm_config.presets import preset_names  # most programs never get here

    if name in preset_names():
        return f"plstm_config.preset({name!r}) makes the config of that name"
    return "plstm_config.preset_names() lists the names from which plstm_config.preset makes a config"
