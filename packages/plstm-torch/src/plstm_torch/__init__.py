"""pLSTM in PyTorch: parallelizable linear source-transition-mark networks on sequences and images."""

from plstm_torch import blocks, layers, models, ops
from plstm_torch.build import build
from plstm_torch.original import load_original
from plstm_torch.pretrained import from_pretrained, load_weights, save_pretrained
from plstm_torch.version import __version__
from plstm_torch.weight_decay import no_weight_decay, parameter_groups

__all__ = [
    "__version__",
    "blocks",
    "build",
    "from_pretrained",
    "layers",
    "load_original",
    "load_weights",
    "models",
    "no_weight_decay",
    "ops",
    "parameter_groups",
    "save_pretrained",
]
