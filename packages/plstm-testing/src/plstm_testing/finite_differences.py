"""Gradients of a numpy function by central differences in float64."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Array = np.ndarray

# Five-point central differences: the truncation error falls with the fourth power of the step, so a wide step keeps
# rounding away. Weights of f(x - 2h), f(x - h), f(x + h), f(x + 2h).
_OFFSETS = (-2.0, -1.0, 1.0, 2.0)
_WEIGHTS = (1 / 12, -8 / 12, 8 / 12, -1 / 12)
STEP = 2e-3


def directional_derivative(
    function: Callable[[Array], float], point: Float[Array, "..."], direction: Float[Array, "..."], step: float = STEP
) -> float:
    """Derivative of a scalar function along a direction: ``<gradient, direction>``.

    Args:
        function: takes an array shaped as `point`, returns a number.
        point: where to differentiate.
        direction: shaped as `point`.
        step: distance between the evaluation points, in units of `direction`.

    Returns:
        The derivative; exact to rounding for polynomials of degree four along `direction`.

    Examples:
        >>> import numpy as np
        >>> from plstm_testing.finite_differences import directional_derivative
        >>> round(directional_derivative(lambda x: float(np.sum(x**2)), np.array([1.0, 3.0]), np.array([1.0, 0.0])), 6)
        2.0
    """
    values = [function(point + offset * step * direction) for offset in _OFFSETS]
    return float(np.dot(_WEIGHTS, values)) / step


def gradient(function: Callable[[Array], float], point: Float[Array, "..."], step: float = STEP) -> Float[Array, "..."]:
    """Gradient of a scalar function, entry by entry.

    Args:
        function: takes an array shaped as `point`, returns a number.
        point: where to differentiate; keep it small, each entry costs four evaluations.
        step: distance between the evaluation points.

    Returns:
        Array shaped as `point`.

    Examples:
        >>> import numpy as np
        >>> from plstm_testing.finite_differences import gradient
        >>> gradient(lambda x: float(np.sum(x**2)), np.array([1.0, 3.0])).round(6).tolist()
        [2.0, 6.0]
    """
    point = np.asarray(point, dtype=np.float64)
    result = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        unit = np.zeros_like(point)
        unit[index] = 1.0
        result[index] = directional_derivative(function, point, unit, step)
    return result
