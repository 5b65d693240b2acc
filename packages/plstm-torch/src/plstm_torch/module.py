"""The base class of every module with parameters."""

import torch
from torch import nn


class Module(nn.Module):
    """A module whose parameters can be drawn anew, at construction and at any later time, with the same result.

    A subclass creates its parameters empty, fills them in `_reset_own_parameters`, and calls that at the end of its
    `__init__`, after all submodules are made. `reset_parameters` then visits the submodules in the order in which
    they were made, and consumes random numbers exactly as the construction did. So a module that was built on the
    "meta" device and moved by `to_empty` gets the weights that it would have had.
    """

    def reset_parameters(self) -> None:
        """Initialise all parameters of this module and of its submodules."""
        for child in self.children():
            _reset(child)
        self._reset_own_parameters()

    def _reset_own_parameters(self) -> None:
        """Initialise the parameters that this module holds itself; most containers hold none."""


def _reset(module: nn.Module) -> None:
    reset = getattr(module, "reset_parameters", None)
    if reset is not None:
        reset()
        return
    for child in module.children():  # containers of torch itself, such as ModuleList
        _reset(child)


def empty_parameter(shape: tuple[int, ...], dtype: torch.dtype) -> nn.Parameter:
    """A parameter without values; whoever creates it fills it before use."""
    return nn.Parameter(torch.empty(shape, dtype=dtype))
