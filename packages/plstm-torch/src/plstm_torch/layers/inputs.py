"""Checks of what a layer is given."""

from torch import Tensor


def check_features(x: Tensor, axes: str, features: int, name: str = "x") -> None:
    """Check rank and last dimension of an input.

    Args:
        x: The input.
        axes: The expected axes as words, such as "B T D"; a leading "..." stands for any number of axes.
        features: The expected size of the last axis.
        name: The argument's name in the message.

    Raises:
        TypeError: If it is no tensor.
        ValueError: If the rank or the number of features differs.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}")
    words = axes.split()
    any_rank = words[0] == "..."
    wrong_rank = x.ndim < len(words) - 1 if any_rank else x.ndim != len(words)
    if wrong_rank or x.shape[-1] != features:
        raise ValueError(
            f"{name} must have shape [{', '.join(words)}] with {words[-1]}={features}, got {list(x.shape)}"
        )
