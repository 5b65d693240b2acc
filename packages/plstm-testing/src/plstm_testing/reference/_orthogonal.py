"""The five ways to normalise a square matrix for the transition layer."""

import math
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

Array = np.ndarray

HOUSEHOLDER_EPSILON = 1e-5
POWER_EPSILON = 1e-3


def qr(matrix: Float[Array, "J J"], order: int = 16, factor: float = 1.0, exponential: str = "exact") -> Array:
    """Q of the QR decomposition by Householder reflections, with LAPACK's signs.

    Every column but the last is reflected onto minus the sign of its diagonal entry; the last is left as it comes.
    """
    size = len(matrix)
    remaining, q = matrix.copy(), np.eye(size)
    for column in range(size - 1):
        below = remaining[column:, column]
        length = math.sqrt(float(np.sum(below**2)))
        if np.all(below[1:] == 0):
            continue
        normal = np.zeros(size)
        normal[column:] = below
        normal[column] += math.copysign(length, below[0])
        reflection = _reflection(normal / math.sqrt(float(np.sum(normal**2))))
        remaining, q = reflection @ remaining, q @ reflection
    return q


def householder(matrix: Float[Array, "J J"], order: int = 16, factor: float = 1.0, exponential: str = "exact") -> Array:
    """Minus the product of the reflections at the matrix's rows, first row first."""
    product = np.eye(len(matrix))
    for row in matrix:
        product = product @ _reflection(row / (math.sqrt(float(np.sum(row**2))) + HOUSEHOLDER_EPSILON))
    return -product


def exponential(matrix: Float[Array, "J J"], order: int = 16, factor: float = 1.0, exponential: str = "exact") -> Array:
    """Exponential of ``K = factor * (A - A^T)``.

    "exact" halves K until the power series converges within a few terms, sums it to rounding and squares back;
    "series" adds the first `order` terms of the series of K itself, which is not orthogonal for large K.
    """
    skew = factor * (matrix - matrix.T)
    if exponential == "series":
        return _power_series(skew, order)
    if exponential != "exact":
        raise ValueError(f"exponential: expected 'exact' or 'series', got {exponential!r}")
    norm = math.sqrt(float(np.sum(skew**2)))
    halvings = max(0, math.ceil(math.log2(norm)) + 1) if norm > 0 else 0
    result = _power_series(skew / 2.0**halvings, 24)
    for _ in range(halvings):
        result = result @ result
    return result


def eigenvalue_restriction(
    matrix: Float[Array, "J J"], order: int = 16, factor: float = 1.0, exponential: str = "exact"
) -> Array:
    """Divide by the largest eigenvalue as power iteration finds it, where it exceeds one."""
    if np.sum(np.abs(matrix - np.eye(len(matrix)))) < POWER_EPSILON:
        return matrix.copy()
    return matrix / _largest_eigenvalue(matrix, order)


def singularvalue_restriction(
    matrix: Float[Array, "J J"], order: int = 16, factor: float = 1.0, exponential: str = "exact"
) -> Array:
    """Divide by the largest singular value as power iteration on ``A A^T`` finds it, where it exceeds one."""
    square = matrix @ matrix.T
    if np.sum(np.abs(square - np.eye(len(matrix)))) < POWER_EPSILON:
        return matrix.copy()
    return matrix / math.sqrt(_largest_eigenvalue(square, order))


NORMALIZATIONS: Mapping[str, Callable[..., Array]] = {
    "qr": qr,
    "householder_orthogonalization": householder,
    "exponential_orthogonalization": exponential,
    "eigenvalue_restriction": eigenvalue_restriction,
    "singularvalue_restriction": singularvalue_restriction,
}


def normalize(
    matrix: Float[Array, "J J"], mode: str, order: int = 16, factor: float = 1.0, exponential: str = "exact"
) -> Float[Array, "J J"]:
    """Normalise one matrix.

    Args:
        matrix: any real square matrix.
        mode: a key of `NORMALIZATIONS`.
        order: orthogonalization_order, the number of series terms or power iterations.
        factor: orthogonalization_factor, scales the skew matrix of the exponential.
        exponential: "exact" or "series".

    Returns:
        The normalised matrix.

    Raises:
        ValueError: if the mode or the kind of exponential is unknown.

    Examples:
        >>> import numpy as np
        >>> from plstm_testing.reference import normalize
        >>> q = normalize(np.random.default_rng(0).standard_normal((3, 3)), "qr", order=16, factor=1.0)
        >>> np.allclose(q.T @ q, np.eye(3))
        True
    """
    if mode not in NORMALIZATIONS:
        raise ValueError(f"mode: expected one of {sorted(NORMALIZATIONS)}, got {mode!r}")
    return NORMALIZATIONS[mode](np.asarray(matrix, np.float64), order, factor, exponential)


def _reflection(unit: Array) -> Array:
    return np.eye(len(unit)) - 2.0 * np.outer(unit, unit)


def _power_series(matrix: Array, terms: int) -> Array:
    term, total = np.eye(len(matrix)), np.zeros_like(matrix)
    for power in range(terms):
        total = total + term
        term = term @ matrix / (power + 1)
    return total


def _largest_eigenvalue(matrix: Array, order: int) -> float:
    """Power iteration in two passes: the first finds a shift away from a dominant negative eigenvalue."""
    identity = np.eye(len(matrix))
    vector = np.ones(len(matrix))
    shifted = matrix - identity
    vector = _iterate(shifted, vector, order)
    lowest = float(vector @ shifted @ vector)
    shift = 1.0 + lowest if lowest < 0 else 1.0
    shifted = matrix - shift * identity
    vector = _iterate(shifted, vector, order)
    return max(float(vector @ shifted @ vector) + shift, 1.0)


def _iterate(matrix: Array, vector: Array, order: int) -> Array:
    for _ in range(order):
        moved = matrix @ vector
        vector = moved / (math.sqrt(float(np.sum(moved**2))) + POWER_EPSILON)
    return vector
