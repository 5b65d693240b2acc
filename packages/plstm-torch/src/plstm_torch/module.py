"""The base class of every module: parameters and submodules as its config lists them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from plstm_config.base import Config
from plstm_config.parameters import Child, Parameter, Repeated, Weights
from plstm_torch.build import build
from plstm_torch.dtypes import torch_dtype
from plstm_torch.initializers import initialize_
from plstm_torch.weight_decay import no_weight_decay


class Module(nn.Module):
    """A module made from a config: `config.children()` are its submodules, `config.parameters()` its parameters.

    Parameters are stored in the config's `param_dtype` and computed with in its `dtype`. `half`, `bfloat16`, `float`,
    `double` and `to(dtype)` change both, as in every module of torch. Gates, states and statistics stay in float32 or
    higher. The config, and with it what is saved, stays as it is.

    pLSTM layers and blocks answer in the dtype of their input, also under autocast, so that they fit into networks of
    other modules; in the dtype of the computation answer models, whose logits and features are made in it, and the
    parts that layers and blocks consist of: linear maps, norms, convolutions.

    Parameters can be drawn anew at any time, with the same result as at construction: `reset_parameters` visits the
    submodules in the order in which they were made, then the module's own parameters. So a module that was built on the
    "meta" device and moved by `to_empty` gets the weights that it would have had.

    Args:
        config: complete config.
    """

    config: Config | Weights
    dtype: torch.dtype  # to compute in; modules whose config has none follow their input

    def __init__(self, config: Config | Weights) -> None:
        nn.Module.__init__(self)  # by name: Linear has a class of torch beside this one, which would draw weights
        self.config = config
        if hasattr(config, "dtype"):
            self.dtype = torch_dtype(config.dtype)
        for name, child in config.children().items():
            self.register_module(name, _submodule(child))
        for name, parameter in config.parameters().items():
            self.register_parameter(name, None if parameter is None else _empty(parameter))
        self._reset_own_parameters()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Let a change of the parameters' dtype reach the dtype of the computation, too."""
        super()._apply(_of_any_rank(fn), recurse)
        if hasattr(self, "dtype"):
            self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        return self

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile calls of this module with `torch.compile`, which gets the arguments.

        With `dynamic=True` every axis of the input but the last is a size of its own. torch itself takes sizes that are
        equal in the first call for one: a program of square images then serves no others, and reckons with quotients
        of squares, which takes it twice as long to compile.
        """
        super().compile(*args, **kwargs)
        compiled = self._compiled_call_impl
        if compiled is not None and kwargs.get("dynamic"):
            self._compiled_call_impl = _with_sizes_apart(compiled)

    def reset_parameters(self) -> None:
        """Initialise all parameters of this module and of its submodules."""
        for child in self.children():
            _reset(child)
        self._reset_own_parameters()

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that should not decay, see `no_weight_decay`."""
        return no_weight_decay(self)

    def _reset_own_parameters(self) -> None:
        for name, parameter in self.config.parameters().items():
            if parameter is not None:
                self._reset_parameter(name, parameter)

    def _reset_parameter(self, name: str, parameter: Parameter) -> None:
        tensor: Tensor = getattr(self, name)
        drawn = tensor.view(parameter.view or parameter.shape)
        initialize_(drawn if parameter.order is None else drawn.permute(parameter.order), parameter.init)


class ParameterGroup(Module):
    """Parameters under a common name, without a function of their own: the kernel of a convolution, a table."""

    weight: nn.Parameter
    bias: nn.Parameter | None


def constant(number: float) -> str:
    """A number of a config as text, for `float` to read where it is used.

    With `dynamic=True` torch.compile takes a float that it finds in an object for one that may vary, traces the program
    with it as an input, and once more without where that does not work out. A text is a constant.
    """
    return repr(float(number))


def _of_any_rank(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same for parameters of five axes, which torch takes for volumes and refuses to lay out channels last."""

    def apply(tensor: Tensor) -> Tensor:
        try:
            return fn(tensor)
        except RuntimeError as error:
            if tensor.ndim != 5 or "channels_last" not in str(error):
                raise
        return fn(tensor.flatten()).view(tensor.shape)

    return apply


def _with_sizes_apart(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """A compiled call, told that the sizes of its first argument have nothing to do with each other."""
    import torch._dynamo  # has been loaded by what compiled the call

    def call(*args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], Tensor) and not torch.compiler.is_compiling():
            torch._dynamo.maybe_mark_dynamic(args[0], tuple(range(args[0].dim() - 1)))
        return compiled(*args, **kwargs)

    return call


def _submodule(child: Child) -> nn.Module | None:
    if child is None:
        return None
    if isinstance(child, Repeated):
        return nn.ModuleList(build(child.config) for _ in range(child.count))
    return ParameterGroup(child) if isinstance(child, Weights) else build(child)


def _empty(parameter: Parameter) -> nn.Parameter:
    values = torch.empty(parameter.shape, dtype=torch_dtype(parameter.dtype))
    return nn.Parameter(values, requires_grad=parameter.learned)


def _reset(module: nn.Module) -> None:
    reset = getattr(module, "reset_parameters", None)
    if reset is not None:
        reset()
        return
    for child in module.children():  # containers of torch itself, such as ModuleList
        _reset(child)
