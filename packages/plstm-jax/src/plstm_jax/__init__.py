"""pLSTM in pure JAX: parallelizable linear source-transition-mark operations, layers and models.

Everything is imported when it is first used, so that the ops come without the configs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from plstm_jax.version import __version__

if TYPE_CHECKING:
    from plstm_jax import functional, ops
    from plstm_jax.generation import generate
    from plstm_jax.padded_graph import pad_graph
    from plstm_jax.parameters import flatten, init, stack_blocks, unflatten, unstack_blocks
    from plstm_jax.pretrained import load, load_original, save
    from plstm_jax.running import apply, init_cache, step

_PLACES = {
    "functional": "",
    "ops": "",
    "apply": "running",
    "init_cache": "running",
    "step": "running",
    "flatten": "parameters",
    "init": "parameters",
    "generate": "generation",
    "stack_blocks": "parameters",
    "unstack_blocks": "parameters",
    "unflatten": "parameters",
    "pad_graph": "padded_graph",
    "load": "pretrained",
    "load_original": "pretrained",
    "save": "pretrained",
}

__all__ = [
    "__version__",
    "apply",
    "flatten",
    "functional",
    "generate",
    "init",
    "init_cache",
    "load",
    "load_original",
    "ops",
    "pad_graph",
    "save",
    "stack_blocks",
    "step",
    "unflatten",
    "unstack_blocks",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = _PLACES[name]
    return getattr(import_module(f"{__name__}.{place}"), name) if place else import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    """What there is, imported or not."""
    return sorted(__all__)
