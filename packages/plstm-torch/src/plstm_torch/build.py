"""From a config to the torch module that it describes.

Every module class registers itself for its config class with `register`; `build` looks the class up. Blocks and
models join the same table, and so can outside code with configs of its own.
"""

from importlib import import_module

from torch import nn

from plstm_config.registry import Registry

REGISTRY: Registry[nn.Module] = Registry()
register = REGISTRY.register


def registered_configs() -> tuple[str, ...]:
    """The names of all config classes that `build` knows, sorted."""
    _import_modules()
    return REGISTRY.names()


def _import_modules() -> None:
    """Let the modules of this package register themselves; `import plstm_torch` alone does not import them."""
    for part in ("layers", "blocks", "models"):
        import_module(f"plstm_torch.{part}")


def build(config: object) -> nn.Module:
    """Make the module that a config describes.

    Parameters are created on torch's default device and initialised from torch's global random state, so that
    `torch.manual_seed` decides the weights and `with torch.device(...)` the place.

    Args:
        config: a config of `plstm_config` (or of any class given to `register`).

    Returns:
        The initialised module, in training mode.

    Raises:
        TypeError: if no module is registered for the config's class; the message lists those that are.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> layer = plstm_torch.build(plstm_config.pLSTM1DLayerConfig(input_dim=8, num_heads=2))
        >>> layer(torch.rand(1, 5, 8)).shape
        torch.Size([1, 5, 8])
    """
    try:
        found = REGISTRY.find(config)
    except TypeError:
        _import_modules()
        found = REGISTRY.find(config)
    return found(config)
