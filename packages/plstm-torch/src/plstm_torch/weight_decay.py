"""Which parameters decay: what the table of the configs says of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import nn

from plstm_config.base import Config
from plstm_config.parameters import Weights


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Sort the parameters that are trained into those that decay and those that do not.

    Weight decay applies to what multiplies an input: weights of linear maps, convolutions and gates, embeddings. It
    does not apply to biases, those of the gates included (they set how far a signal reaches and are no measure of
    complexity), to scales of norms, or to positions. The number of axes does not tell: biases of gates have three. In
    modules that are not made from a config, whatever has more than one axis decays.

    Args:
        model: any module.
        weight_decay: decay of the first group.

    Returns:
        Groups for an optimizer of torch, without empty ones; a parameter that is shared stands there once.

    Raises:
        TypeError: `model` is no module, or `weight_decay` no number.
        ValueError: `weight_decay` is negative or not finite.

    Examples:
        >>> import plstm_config, plstm_torch, torch
        >>> model = plstm_torch.build(plstm_config.pLSTM1DLayerConfig(input_dim=8, num_heads=2))
        >>> optimizer = torch.optim.AdamW(plstm_torch.parameter_groups(model, weight_decay=0.05), lr=1e-3)
        >>> [group["weight_decay"] for group in optimizer.param_groups]
        [0.05, 0.0]
    """
    if isinstance(weight_decay, bool) or not isinstance(weight_decay, int | float):
        raise TypeError(f"weight_decay: expected a number, got {type(weight_decay).__name__}")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay: expected a finite number >= 0, got {weight_decay}")
    trained = [(parameter, decays) for _, parameter, decays in _parameters(model) if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter, decays in trained if decays], "weight_decay": weight_decay},
        {"params": [parameter for parameter, decays in trained if not decays], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def no_weight_decay(model: nn.Module) -> set[str]:
    """The names of the parameters that should not decay, as optimizers of other libraries ask for them.

    Args:
        model: any module.

    Returns:
        Dotted names as in `model.named_parameters()`.

    Raises:
        TypeError: `model` is no module.

    Examples:
        >>> import plstm_config, plstm_torch
        >>> layer = plstm_torch.build(plstm_config.LinearConfig(input_dim=4, output_dim=2))
        >>> plstm_torch.no_weight_decay(layer)
        {'bias'}
    """
    return {name for name, _, decays in _parameters(model) if not decays}


def _parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, bool]]:
    """Names, parameters in the order of the model, and whether they decay."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch module, got {type(model).__name__}")
    known: set[nn.Parameter] = set()
    for path, module in model.named_modules():
        config = getattr(module, "config", None)
        table = config.parameters() if isinstance(config, Config | Weights) else {}
        for name, parameter in module.named_parameters(recurse=False):
            if parameter not in known:
                known.add(parameter)
                described = table.get(name)
                decays = parameter.ndim > 1 if described is None else described.decay
                yield f"{path}.{name}" if path else name, parameter, decays
