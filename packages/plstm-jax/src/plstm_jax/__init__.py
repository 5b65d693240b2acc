"""pLSTM in pure JAX: parallelizable linear source-transition-mark operations, layers and models.

Everything is imported when it is first used, so that the ops come without the configs.
"""

from typing import TYPE_CHECKING

from plstm_config.lazy import lazily
from plstm_jax.version import __version__

if TYPE_CHECKING:
    from plstm_jax import functional, ops
    from plstm_jax.generation import generate
    from plstm_jax.padded_graph import pad_graph
    from plstm_jax.parameters import flatten, init, stack_blocks, unflatten, unstack_blocks
    from plstm_jax.pretrained import load, load_original, load_weights, save
    from plstm_jax.running import apply, init_cache, step

__getattr__, __dir__ = lazily(
    __name__,
    {
        "functional": ".functional",
        "ops": ".ops",
        "apply": ".running",
        "init_cache": ".running",
        "step": ".running",
        "flatten": ".parameters",
        "init": ".parameters",
        "generate": ".generation",
        "stack_blocks": ".parameters",
        "unstack_blocks": ".parameters",
        "unflatten": ".parameters",
        "pad_graph": ".padded_graph",
        "load": ".pretrained",
        "load_original": ".pretrained",
        "load_weights": ".pretrained",
        "save": ".pretrained",
    },
)

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
    "load_weights",
    "ops",
    "pad_graph",
    "save",
    "stack_blocks",
    "step",
    "unflatten",
    "unstack_blocks",
]
