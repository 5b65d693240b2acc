"""Pointwise functions of the blocks."""

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.nn import functional

from plstm_config.options import choose

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
    return choose("gating_function", name, _FUNCTIONS)
