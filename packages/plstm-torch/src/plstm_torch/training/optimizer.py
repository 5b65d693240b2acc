"""AdamW, and the learning rate over time."""

import math

import torch
from torch import nn

from plstm_torch.settings import TrainingSettings
from plstm_torch.weight_decay import parameter_groups


def make_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    """Make AdamW with two groups, with and without decay, see `parameter_groups`.

    Args:
        model: whose parameters to train.
        settings: learning rate, decay and betas.

    Returns:
        The optimizer.
    """
    return torch.optim.AdamW(
        parameter_groups(model, settings.weight_decay),
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
