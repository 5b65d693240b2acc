"""What both models share: the parts of a model of this package under their canonical names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

import plstm_config
from plstm_config.parameters import Weights
from plstm_torch.build import build
from plstm_torch.dtypes import torch_dtype
from plstm_torch.hf.configuration import PlstmConfig
from plstm_torch.module import Module


class PlstmPreTrainedModel(PreTrainedModel):
    """A model of this package that transformers saves, loads and trains.

    The parts of the model stand in this module itself, not in a submodule, so that all names of parameters are those of
    the shared file format. The model that computes with them, `plain`, holds the same dicts of submodules and
    parameters: what replaces a part here, replaces it there.

    The weights are in the dtype that transformers was asked for, and so is what is computed, as after
    `plain.to(dtype)`; where that is the config's `param_dtype`, the config's `dtype` counts.

    Args:
        config: config of the model.

    Raises:
        TypeError: the config is none of plstm_torch.hf.
        ValueError: it describes another kind of model.
    """

    config_class = PlstmConfig
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    _is_stateful = True
    plain_config: type[plstm_config.Config]

    def __init__(self, config: PlstmConfig) -> None:
        if not isinstance(config, PlstmConfig):
            raise TypeError(f"config: expected a PlstmConfig, got {type(config).__name__}")
        super().__init__(config)
        wrapped: Any = config.plstm
        if not isinstance(wrapped, self.plain_config):
            expected = self.plain_config.__dataclass_fields__["class_name"].default
            raise ValueError(f"config: expected a {expected} for {type(self).__name__}, got a {wrapped.class_name}")
        plain = build(wrapped)
        if config.dtype is not None and torch_dtype(config.plstm.param_dtype) != config.dtype:
            plain.to(config.dtype)
        # set past nn.Module, which would make `plain` a submodule with every name twice
        self.__dict__.update(plain=plain, _modules=plain._modules, _parameters=plain._parameters)
        for parameter in plain.parameters():
            if parameter.device.type != "meta":  # it is drawn already, by the config's own initialiser
                parameter._is_hf_initialized = True  # type: ignore[attr-defined]
        self.post_init()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Let a change of the parameters' dtype reach the dtype of the computation, too."""
        super()._apply(fn, recurse)
        plain: Any = self.__dict__["plain"]
        plain.dtype = fn(torch.empty(0, dtype=plain.dtype)).dtype
        return self

    def _init_weights(self, module: nn.Module) -> None:
        """Draw what no file held, each parameter by the config's own initialiser."""
        described = self.__dict__["plain"] if module is self else module
        config = getattr(described, "config", None)
        if not isinstance(described, Module) or not isinstance(config, plstm_config.Config | Weights):
            return
        for name, parameter in config.parameters().items():
            own = described._parameters.get(name)
            if parameter is not None and own is not None and not getattr(own, "_is_hf_initialized", False):
                described._reset_parameter(name, parameter)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that should not decay, see `no_weight_decay`."""
        plain: Module = self.__dict__["plain"]
        return plain.no_weight_decay()
