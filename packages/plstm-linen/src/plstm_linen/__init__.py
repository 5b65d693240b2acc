"""pLSTM in flax.linen: parallelizable linear source-transition-mark networks on sequences, images and graphs."""

from typing import TYPE_CHECKING

from plstm_config.lazy import lazily
from plstm_linen.version import __version__

if TYPE_CHECKING:
    from plstm_linen import blocks, layers, models, ops
    from plstm_linen.generation import generate
    from plstm_linen.module import build
    from plstm_linen.names import from_canonical, to_canonical
    from plstm_linen.pretrained import from_pretrained, load_original, load_weights, save_pretrained

_PRETRAINED = ("from_pretrained", "load_original", "load_weights", "save_pretrained")

__getattr__, __dir__ = lazily(
    __name__,
    {
        **{name: f".{name}" for name in ("layers", "blocks", "models", "ops")},
        **dict.fromkeys(_PRETRAINED, ".pretrained"),
        **dict.fromkeys(("from_canonical", "to_canonical"), ".names"),
        "build": ".module",
        "generate": ".generation",
    },
)

__all__ = [
    "__version__",
    "blocks",
    "build",
    "from_canonical",
    "from_pretrained",
    "generate",
    "layers",
    "load_original",
    "load_weights",
    "models",
    "ops",
    "save_pretrained",
    "to_canonical",
]
