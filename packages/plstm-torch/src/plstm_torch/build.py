"""From a config to the torch module that it describes.

Every module class registers itself for its config class with [register][]; [build][] looks the class up. Blocks and
models join the same table, and so can outside code with configs of its own.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

from torch import nn

ModuleClass = TypeVar("ModuleClass", bound=type[nn.Module])

_MODULES: dict[type, Callable[[Any], nn.Module]] = {}


def register(config_class: type) -> Callable[[ModuleClass], ModuleClass]:
    """Let [build][] make the decorated module class from configs of one class.

    Args:
        config_class: The config class; the module is made by calling the decorated class with such a config only.

    Returns:
        A class decorator that returns the class unchanged.

    Raises:
        ValueError: If another module class already holds this config class.
    """

    def decorate(module_class: ModuleClass) -> ModuleClass:
        known = _MODULES.setdefault(config_class, module_class)
        if known is not module_class:
            raise ValueError(
                f"config_class={config_class.__name__} is already registered for {known}, got {module_class.__name__}"
            )
        return module_class

    return decorate


def registered_configs() -> tuple[str, ...]:
    """The names of all config classes that [build][] knows, sorted."""
    _import_modules()
    return tuple(sorted(config_class.__name__ for config_class in _MODULES))


def _import_modules() -> None:
    """Let the modules of this package register themselves; `import plstm_torch` alone does not import them."""
    for part in ("layers", "blocks", "models"):
        import_module(f"plstm_torch.{part}")


def build(config: object) -> nn.Module:
    """Make the module that a config describes.

    Parameters are created on torch's default device and initialised from torch's global random state, so that
    `torch.manual_seed` decides the weights and `with torch.device(...)` the place.

    Args:
        config: A config of `plstm_config` (or of any class given to [register][]).

    Returns:
        The initialised module, in training mode.

    Raises:
        TypeError: If no module is registered for the config's class; the message lists those that are.
    """
    if type(config) not in _MODULES:
        _import_modules()
    module_class = _MODULES.get(type(config))
    if module_class is None:
        raise TypeError(
            f"config must be an instance of one of {', '.join(registered_configs())}, got {type(config).__name__}"
        )
    return module_class(config)
