"""Pointwise functions of the blocks."""

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.nn import functional

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
}


def gating_function(name: str) -> Callable[[Tensor], Tensor]:
    """Look up a pointwise function by its config name.

    Args:
        name: "silu", "gelu" (exact, with erf) or "gelu_tanh" (tanh approximation).

    Returns:
        The function of one tensor.

    Raises:
        ValueError: unknown name.
    """
    if name not in _FUNCTIONS:
        raise ValueError(f"gating_function: expected one of {sorted(_FUNCTIONS)}, got {name!r}")
    return _FUNCTIONS[name]
