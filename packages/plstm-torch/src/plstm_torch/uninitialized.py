"""A module whose input width its first input tells: parameters without a shape until then."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter, is_lazy

from plstm_config import parameter_tree
from plstm_config.base import Config
from plstm_torch.build import build
from plstm_torch.dtypes import torch_dtype
from plstm_torch.module import Module


class Uninitialized(nn.Module):
    """Holds the parameters of a module that cannot be built yet: the names are known, the shapes are not.

    An optimizer may be given the parameters, and `to` moves them: `materialize` fills the same objects. They are saved
    as what they are, without values.

    Args:
        config: of the module with any width in place of the one that is not known; None for an inner part.
    """

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        if config is None:
            return
        for name, parameter in parameter_tree(config).items():
            *path, last = name.split(".")
            part: nn.Module = self
            for step in path:
                if step not in part._modules:
                    part.add_module(step, Uninitialized())
                part = part.get_submodule(step)
            # torch's own stubs know nothing of its arguments
            kind: Any = UninitializedParameter
            empty = kind(requires_grad=parameter.learned, dtype=torch_dtype(parameter.dtype))
            part.register_parameter(last, empty)
        # follows what `to` makes of the dtype to compute in, as the module would
        self.register_buffer("_typed", torch.empty(0, dtype=torch_dtype(getattr(config, "dtype", "float32"))), False)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination.update({prefix + name: parameter for name, parameter in self._parameters.items()})

    def materialize(self, config: Config, *, drawn: bool = True) -> Module:
        """Build the module around the parameters.

        Args:
            config: of the module, with all widths.
            drawn: whether the values are drawn, from the generator of the CPU as in `build`; otherwise they are left
                for `load_state_dict` to fill.

        Returns:
            The module, with the parameters, dtypes, device and mode (training or evaluation) of this one.
        """
        with torch.device("cpu" if drawn else "meta"):
            module = build(config)
        for part in module.modules():
            if isinstance(part, Module) and hasattr(part, "dtype"):
                part.dtype = self.get_buffer("_typed").dtype
        with torch.inference_mode(False), torch.no_grad():  # or they could never be trained
            for name, values in list(module.named_parameters()):
                path, _, last = name.rpartition(".")
                own: Any = self.get_parameter(name)
                own.materialize(values.shape)
                if drawn:
                    own.copy_(values)
                module.get_submodule(path)._parameters[last] = own
        return module.train(self.training)  # type: ignore[return-value]  # `build` makes no other


def is_uninitialized(value: Tensor) -> bool:
    """Whether a parameter or an entry of a state dict has no shape yet."""
    return bool(is_lazy(value))
