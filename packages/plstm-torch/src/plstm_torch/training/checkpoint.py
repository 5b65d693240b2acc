"""Put a checkpoint's contents back, whatever state they are in."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from plstm_torch.optional import UserError
from plstm_torch.training.sharding import spread_means

_MOMENTS = ("exp_avg", "exp_avg_sq")


def restore(checkpoint: Mapping[str, Any], path: Path, parts: Mapping[str, Callable[[Any], None]]) -> None:
    """Hand each part of a checkpoint to whoever reads it.

    Args:
        checkpoint: contents of the file.
        path: of the file, for messages.
        parts: for each entry its reader.

    Raises:
        UserError: if an entry is missing or does not fit; the message names file and entry.
    """
    for name, read in parts.items():
        if name not in checkpoint:
            raise UserError(f"{path}: expected the entry {name!r}, which is missing")
        try:
            read(checkpoint[name])
        except Exception as error:  # torch raises whatever damaged contents happen to trip
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path}: {name} does not fit the settings of the run: {reason}") from error


def load_model(model: nn.Module, state: Any) -> None:
    """Give a model its weights back.

    Args:
        model: the model.
        state: from the checkpoint.

    Raises:
        ValueError: if they are not finite; also what torch raises where names or shapes do not fit.
    """
    model.load_state_dict(state)
    if not all_finite(model.state_dict().values()):
        raise ValueError("model: expected finite weights, got an infinity or NaN")


def load_optimizer(optimizer: torch.optim.Optimizer, stored: Any) -> None:
    """Give an AdamW its running means back; everything else of it follows from the settings.

    Args:
        optimizer: the optimizer.
        stored: from the checkpoint.

    Raises:
        ValueError: if they do not fit the parameters, or are not finite.
    """
    own = optimizer.state_dict()
    state, number = stored["state"], sum(len(group["params"]) for group in own["param_groups"])
    if not isinstance(state, dict) or (state and set(state) != set(range(number))):
        raise ValueError(f"optimizer: expected the state of {number} parameters, got {state!r:.80}")
    optimizer.load_state_dict({**own, "state": state})
    for parameter, means in optimizer.state.items():
        for name in ("step", *_MOMENTS):
            shape = parameter.shape if name in _MOMENTS else torch.Size()
            value = means.get(name)
            if not isinstance(value, Tensor) or value.shape != shape or not all_finite([value]):
                raise ValueError(f"{name}: expected finite numbers of shape {tuple(shape)}, got {value!r:.80}")
    spread_means(optimizer)


def all_finite(tensors: Any) -> bool:
    """Whether no tensor holds an infinity or NaN."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors if isinstance(tensor, Tensor))
