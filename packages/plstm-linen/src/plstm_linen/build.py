"""From a config to the linen module that it describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plstm_config.registry import Registry

if TYPE_CHECKING:
    from plstm_linen.module import Module

REGISTRY: Registry[Module] = Registry()
register = REGISTRY.register


def build(config: object, **options: Any) -> Module:
    """Make the module that a config describes.

    Args:
        config: a config of `plstm_config` (or of any class that a subclass of `Module` names as its `config_class`).
        options: further fields of the module: `remat`, `partitioned`, `scan_blocks`, `name`.

    Returns:
        The module; its parameters come from `init` or from a folder.

    Raises:
        TypeError: if no module is registered for the config's class; the message lists those that are.
    """
    return REGISTRY.find(config)(config, **options)
