"""pLSTM in PyTorch: parallelizable linear source-transition-mark networks on sequences and images.

torch and the modules are imported with the first name that is asked for: `plstm-torch --help` needs none of them.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from plstm_torch.version import __version__

if TYPE_CHECKING:
    from plstm_torch import blocks, layers, models, ops, parallel
    from plstm_torch.build import build
    from plstm_torch.original import load_original
    from plstm_torch.pretrained import from_pretrained, load_weights, save_pretrained
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
    "parallel",
    "parameter_groups",
    "save_pretrained",
]
# where the names are that are no modules
_HOMES = {
    "build": "build",
    "from_pretrained": "pretrained",
    "load_original": "original",
    "load_weights": "pretrained",
    "no_weight_decay": "weight_decay",
    "parameter_groups": "weight_decay",
    "save_pretrained": "pretrained",
}


class _LazyPackage(ModuleType):
    """This package; `plstm_torch.build` is the function, whoever imports the module of that name first."""

    def __getattr__(self, name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'plstm_torch' has no attribute {name!r}")
        for part in ("layers", "blocks", "models"):  # which register themselves for their configs
            import_module(f"plstm_torch.{part}")
        module = import_module(f"plstm_torch.{_HOMES.get(name, name)}")
        found = getattr(module, name) if name in _HOMES else module
        self.__dict__[name] = found
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _HOMES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _LazyPackage
