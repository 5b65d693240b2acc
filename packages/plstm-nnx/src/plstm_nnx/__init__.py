"""pLSTM in flax.nnx: parallelizable linear source-transition-mark networks on sequences, images and graphs."""

from typing import TYPE_CHECKING

from plstm_config.lazy import lazily
from plstm_nnx.version import __version__

if TYPE_CHECKING:
    from plstm_jax.sharding import axis_rules
    from plstm_nnx import blocks, layers, models, ops
    from plstm_nnx.module import build, weight_decay_mask
    from plstm_nnx.pretrained import from_pretrained, get_params, load_original, load_weights, save_pretrained

_PRETRAINED = ("from_pretrained", "get_params", "load_original", "load_weights", "save_pretrained")

__getattr__, __dir__ = lazily(
    __name__,
    {
        **{name: f".{name}" for name in ("layers", "blocks", "models", "ops")},
        **dict.fromkeys(("build", "weight_decay_mask"), ".module"),
        **dict.fromkeys(_PRETRAINED, ".pretrained"),
        "axis_rules": "plstm_jax.sharding",
    },
)

__all__ = [
    "__version__",
    "axis_rules",
    "blocks",
    "build",
    "from_pretrained",
    "get_params",
    "layers",
    "load_original",
    "load_weights",
    "models",
    "ops",
    "save_pretrained",
    "weight_decay_mask",
]
