"""pLSTM in flax.nnx: parallelizable linear source-transition-mark networks on sequences, images and graphs.

Modules are imported with the first name that is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from plstm_nnx.version import __version__

if TYPE_CHECKING:
    from plstm_jax.sharding import axis_rules
    from plstm_nnx import blocks, layers, models, ops
    from plstm_nnx.module import build
    from plstm_nnx.pretrained import from_pretrained, get_params, load_original, save_pretrained

# where the names are that are no modules
_PLACES = {
    "axis_rules": "plstm_jax.sharding",
    "build": "plstm_nnx.module",
    "from_pretrained": "plstm_nnx.pretrained",
    "get_params": "plstm_nnx.pretrained",
    "load_original": "plstm_nnx.pretrained",
    "save_pretrained": "plstm_nnx.pretrained",
}

__all__ = [
    "__version__",
    "axis_rules",
    "blocks",
    "build",
    "from_pretrained",
    "get_params",
    "layers",
    "load_original",
    "models",
    "ops",
    "save_pretrained",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name != "ops":
        for part in ("layers", "blocks", "models"):  # whose classes register themselves for their configs
            import_module(f"{__name__}.{part}")
    return getattr(import_module(_PLACES[name]), name) if name in _PLACES else import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    """What there is, imported or not."""
    return sorted(__all__)
