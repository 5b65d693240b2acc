"""What a saved model is: its size, what a call costs, and its config."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import plstm_config
from plstm_config import pLSTMLMModelConfig, pLSTMVisionModelConfig
from plstm_torch.pretrained import from_pretrained

_TOKENS = 256  # of the text that is measured: the cost of a token does not depend on the length from some chunks on


@dataclass(frozen=True)
class Info:
    """Numbers of a model.

    Attributes:
        class_name: of its config.
        parameters: number of parameters.
        bytes: memory that they take.
        unit: what the other numbers are of: "image", "token", or None where a call's cost depends on its input alone.
        flops: floating point operations of the products in a forward pass for one image or token, a multiplication and
            an addition counted as two; None without a unit.
        state_bytes: memory of what a language model keeps of one sequence, however long; None for other models, also
            those that read sequences from both ends.
    """

    class_name: str
    parameters: int
    bytes: int
    unit: str | None
    flops: int | None
    state_bytes: int | None


@torch.no_grad()
def describe(folder: str | os.PathLike[str]) -> Info:
    """Read a folder and measure its model on the CPU.

    Args:
        folder: a folder written by `save_pretrained` of any backend.

    Returns:
        The numbers.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or the weights do not fit the config.
    """
    model: Any = from_pretrained(folder, device="cpu")
    config = model.config
    unit = flops = state = None
    if isinstance(config, pLSTMVisionModelConfig):
        shape = (config.num_channels, *config.resolution)
        pixels = torch.zeros(1, *(shape if config.channels_first else (*shape[1:], shape[0])))
        unit, flops = "image", _flops(model, pixels)
    elif isinstance(config, pLSTMLMModelConfig):
        unit, flops = "token", _flops(model, torch.zeros(1, _TOKENS, dtype=torch.long)) // _TOKENS
        state = None if config.kind == "bidirectional" else _bytes_of(model.init_cache(1))
    parameters = list(model.parameters())
    return Info(
        class_name=str(config.class_name),
        parameters=sum(parameter.numel() for parameter in parameters),
        bytes=sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        unit=unit,
        flops=flops,
        state_bytes=state,
    )


def _flops(model: nn.Module, example: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        model(example)
    return int(counter.get_total_flops())


def _bytes_of(tree: Any) -> int:
    if isinstance(tree, Tensor):
        return tree.numel() * tree.element_size()
    return sum(map(_bytes_of, tree.values()))


def config_tree(config: plstm_config.Config, name: str = "config", indent: str = "") -> str:
    """Draw a config as a tree: a line for each part, with those of its fields that are no parts and no initialisers.

    Args:
        config: any config.
        name: name of its line.
        indent: what its lines start with.

    Returns:
        The lines.
    """
    plain, children = [], []
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, plstm_config.Config):
            children.append((field.name, value))
        elif field.name != "class_name" and value is not None:
            plain.append(f"{field.name}={value}")
    lines = [f"{indent}{name}: {getattr(config, 'class_name', type(config).__name__)} {', '.join(plain)}".rstrip()]
    lines += [config_tree(child, own, indent + "  ") for own, child in children if not own.endswith("init")]
    return "\n".join(lines)
