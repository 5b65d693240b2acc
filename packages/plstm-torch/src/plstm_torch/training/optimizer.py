"""AdamW, which of the parameters decay, and the learning rate over time."""

import math

import torch
from torch import nn

from plstm_torch.settings import TrainingSettings


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Tell whether weight decay applies to a parameter.

    It applies to what multiplies an input (weights of linear maps, convolutions, gates, embeddings). It does not apply
    to biases, those of the gates included (they set how far a signal reaches and are no measure of complexity), to
    scales of norms and other vectors, or to positional embeddings.

    Args:
        name: dotted name in the model.
        parameter: the parameter.

    Returns:
        True if it decays.
    """
    last = name.rsplit(".", maxsplit=1)[-1]
    return parameter.ndim > 1 and not last.endswith("bias") and last != "scale" and "pos_embed" not in name


def make_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    """Make AdamW with two groups, with and without decay.

    Args:
        model: whose parameters to train.
        settings: learning rate, decay and betas.

    Returns:
        The optimizer.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in trained if decays(name, p)], "weight_decay": settings.weight_decay},
        {"params": [p for name, p in trained if not decays(name, p)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
    )


def learning_rate(step: int, total_steps: int, steps_per_epoch: int, settings: TrainingSettings) -> float:
    """Return the learning rate of a step: a straight rise, then half a cosine.

    Args:
        step: number of steps done before this one.
        total_steps: of the run.
        steps_per_epoch: turns `warmup_epochs` into steps.
        settings: the rates.

    Returns:
        The learning rate.
    """
    warmup = min(round(settings.warmup_epochs * steps_per_epoch), total_steps - 1)
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total_steps - warmup)
    floor = settings.final_learning_rate
    return settings.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))
