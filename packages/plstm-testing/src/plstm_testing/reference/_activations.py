"""Scalar functions."""

import math
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

Array = np.ndarray
Scalar = Callable[[float], float]


def _sigmoid(z: float) -> float:
    return 1.0 / (1.0 + math.exp(-z)) if z >= 0 else math.exp(z) / (1.0 + math.exp(z))


def _log_sigmoid(z: float) -> float:
    return min(z, 0.0) - math.log1p(math.exp(-abs(z)))


def _gelu(z: float) -> float:
    return 0.5 * z * (1.0 + math.erf(z / math.sqrt(2.0)))


def _gelu_tanh(z: float) -> float:
    return 0.5 * z * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (z + 0.044715 * z**3)))


ACTIVATIONS: Mapping[str, Scalar] = {
    "identity": lambda z: z,
    "tanh": math.tanh,
    "sigmoid": _sigmoid,
    "logsigmoid": _log_sigmoid,
    "silu": lambda z: z * _sigmoid(z),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
}


def elementwise(function: Scalar, array: Float[Array, "..."]) -> Float[Array, "..."]:
    """Apply a function of one number to every entry."""
    array = np.asarray(array, dtype=np.float64)
    return np.array([function(float(entry)) for entry in array.ravel()], dtype=np.float64).reshape(array.shape)


def activation(name: str, array: Float[Array, "..."]) -> Float[Array, "..."]:
    """Apply an activation by name.

    Args:
        name: a key of `ACTIVATIONS`; "gelu" is the exact form with erf, "gelu_tanh" its approximation.
        array: any shape.

    Returns:
        Array of the same shape.

    Raises:
        ValueError: if the name is unknown.

    Examples:
        >>> import numpy as np
        >>> from plstm_testing.reference import activation
        >>> activation("silu", np.array([0.0, 10.0])).round(3).tolist()
        [0.0, 10.0]
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"name: expected one of {sorted(ACTIVATIONS)}, got {name!r}")
    return elementwise(ACTIVATIONS[name], array)


def soft_cap(array: Float[Array, "..."], cap: float) -> Float[Array, "..."]:
    """Limit every entry smoothly to the range of ±cap: ``cap * tanh(z / cap)``.

    Args:
        array: any shape.
        cap: the limit.

    Returns:
        Array of the same shape.

    Examples:
        >>> import numpy as np
        >>> from plstm_testing.reference import soft_cap
        >>> soft_cap(np.array([0.0, 1e4]), 15.0).tolist()
        [0.0, 15.0]
    """
    return elementwise(lambda z: cap * math.tanh(z / cap), array)
