"""Checks of what a layer is given."""

from __future__ import annotations

from jax import Array


def check_features(x: Array, axes: str, features: int, name: str = "x") -> None:
    """Check rank and last dimension of an input.

    Args:
        x: the input.
        axes: the expected axes as words, such as "B T D"; a leading "..." stands for any number of axes.
        features: the expected size of the last axis.
        name: the argument's name in the message.

    Raises:
        ValueError: if the rank or the number of features differs.
    """
    words = axes.split()
    any_rank = words[0] == "..."
    wrong_rank = x.ndim < len(words) - 1 if any_rank else x.ndim != len(words)
    if wrong_rank or x.shape[-1] != features:
        raise ValueError(
            f"{name} must have shape [{', '.join(words)}] with {words[-1]}={features}, got {list(x.shape)}"
        )
