"""pLSTM in flax.linen: parallelizable linear source-transition-mark networks on sequences, images and graphs."""

from plstm_linen import blocks, layers, models, ops
from plstm_linen.build import build
from plstm_linen.generation import generate
from plstm_linen.names import from_canonical, to_canonical
from plstm_linen.pretrained import from_pretrained, load_original, save_pretrained
from plstm_linen.version import __version__

__all__ = [
    "__version__",
    "blocks",
    "build",
    "from_canonical",
    "from_pretrained",
    "generate",
    "layers",
    "load_original",
    "models",
    "ops",
    "save_pretrained",
    "to_canonical",
]
