"""The five ways to normalise a square matrix for the transition layer.

Three give an orthogonal matrix, so that U diag(sigma) V has no singular value above those of sigma. The other two
divide by an estimate from power iteration: `singularvalue_restriction` bounds the matrix to the accuracy of that
iteration, `eigenvalue_restriction` bounds no norm at all unless the matrix is symmetric and positive.

Everything is made of products. The matrices are small and many, and on CPU two of XLA's batched calls of LAPACK that
run at once may wait for each other forever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from plstm_config.options import check_choice
from plstm_jax.ops.arrays import contract, lifted

_HOUSEHOLDER_EPSILON = 1e-5
_POWER_EPSILON = 1e-3
# Enough for float64 where the Frobenius norm is at most 1/2.
_EXPONENTIAL_TERMS = 16
_MOST_SQUARINGS = 16


@jax.custom_jvp
def qr(matrix: Float[Array, "*batch J J"]) -> Float[Array, "*batch J J"]:
    """Q of the decomposition A = Q R, with the signs that LAPACK returns (R's diagonal may be negative).

    Every column but the last is reflected onto minus the sign of its diagonal entry, unless nothing but zeros stands
    below that; the last is left as it comes.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from plstm_jax.functional import qr
        >>> q = qr(jax.random.normal(jax.random.key(0), (5, 3, 3)))
        >>> bool(jnp.allclose(q.mT @ q, jnp.eye(3), atol=1e-5))
        True
    """
    size = matrix.shape[-1]
    places = lifted(jnp.arange(size), matrix.ndim - 1)

    def reflect(carry: tuple[Array, Array], column: Array) -> tuple[tuple[Array, Array], None]:
        q, rest = carry
        entries = lax.dynamic_index_in_dim(rest, column, -1, keepdims=False)
        head, below = jnp.where(places == column, entries, 0), jnp.where(places > column, entries, 0)
        length = _norm(head + below)
        sign = jnp.where(jnp.sum(head, -1, keepdims=True) < 0, -1, 1)
        normal = head + below + jnp.where(places == column, sign * length, 0)
        needed = jnp.any(below != 0, -1, keepdims=True) & (length > 0)
        unit = jnp.where(needed, normal / jnp.where(needed, _norm(normal), 1), 0)
        along = contract("...i,...ij->...j", unit, rest)
        rest = rest - 2 * unit[..., :, None] * along[..., None, :]
        along = contract("...ij,...j->...i", q, unit)
        return (q - 2 * along[..., :, None] * unit[..., None, :], rest), None

    start = jnp.broadcast_to(jnp.eye(size, dtype=matrix.dtype), matrix.shape), matrix
    return lax.scan(reflect, start, jnp.arange(size - 1))[0][0]


@qr.defjvp
def _qr_tangent(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """The tangent is Q (L - L^T), where L is what stands below the diagonal of Q^T dA R^-1."""
    q = qr(*primals)
    r, turned = (contract("...ji,...jk->...ik", q, array) for array in (*primals, *tangents))
    lower = jnp.tril(contract("...ij,...jk->...ik", turned, _inverse_columns(r)), -1)
    return q, contract("...ij,...jk->...ik", q, lower - jnp.swapaxes(lower, -1, -2))


def _inverse_columns(upper: Array) -> Array:
    """The inverse of an upper triangular matrix; zero in the last column, whose pivot may be zero."""
    identity = jnp.eye(upper.shape[-1], dtype=upper.dtype)

    def divide(found: Array, column: Array) -> tuple[Array, None]:
        """Column by column; those to come are still zero."""
        factors = lax.dynamic_index_in_dim(upper, column, -1, keepdims=False)
        new = lifted(identity[column], upper.ndim - 1) - contract("...ij,...j->...i", found, factors)
        new = new / lax.dynamic_index_in_dim(factors, column, -1)
        return found + new[..., :, None] * lifted(identity[column], upper.ndim), None

    return lax.scan(divide, jnp.zeros_like(upper), jnp.arange(upper.shape[-1] - 1))[0]


def householder_orthogonalization(matrix: Float[Array, "*batch J J"]) -> Float[Array, "*batch J J"]:
    """Minus the product of the reflections at a matrix's rows.

    u_i = A[i] / (|A[i]| + 1e-5), result -(I - 2 u_0 u_0^T) ... (I - 2 u_{J-1} u_{J-1}^T), for any J.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from plstm_jax.functional import householder_orthogonalization
        >>> q = householder_orthogonalization(jax.random.normal(jax.random.key(0), (3, 3)))
        >>> bool(jnp.allclose(q.mT @ q, jnp.eye(3), atol=1e-3))
        True
    """
    directions = matrix / (_norm(matrix) + _HOUSEHOLDER_EPSILON)

    def reflect(product: Array, direction: Array) -> tuple[Array, None]:
        along = contract("...ij,...j->...i", product, direction)
        return product - 2.0 * along[..., :, None] * direction[..., None, :], None

    start = jnp.broadcast_to(-jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape)
    return lax.scan(reflect, start, jnp.moveaxis(directions, -2, 0))[0]


def exponential_orthogonalization(
    matrix: Float[Array, "*batch J J"], factor: float = 1.0, terms: int | None = None
) -> Float[Array, "*batch J J"]:
    """Exponential of the skew-symmetric part of a matrix: exp(g (A - A^T)), with g the factor.

    Args:
        matrix: the matrices A.
        factor: g.
        terms: none for the exact exponential, which is orthogonal (NaN where the Frobenius norm of g (A - A^T) exceeds
            2**15). Otherwise the number n of terms of the series
            sum_{p=0}^{n-1} K^p / p!, which is not orthogonal for large K: with 16 terms a Frobenius norm of 12 gives
            a spectral norm of 26.

    Returns:
        The exponentials.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from plstm_jax.functional import exponential_orthogonalization
        >>> q = exponential_orthogonalization(jax.random.normal(jax.random.key(0), (3, 3)))
        >>> bool(jnp.allclose(q.mT @ q, jnp.eye(3), atol=1e-5))
        True
    """
    skew = factor * (matrix - jnp.swapaxes(matrix, -1, -2))
    return _exponential(skew) if terms is None else _power_series(skew, terms)


def _exponential(matrix: Array) -> Array:
    """Halve the matrix until few terms of the series are enough, and square back."""
    norm = lax.stop_gradient(jnp.sqrt(jnp.sum(matrix * matrix, axis=(-2, -1), keepdims=True)))
    halvings = jnp.maximum(jnp.ceil(jnp.log2(jnp.maximum(norm, 2.0**-10))) + 1, 0)
    result = _power_series(matrix * jnp.exp2(-halvings), _EXPONENTIAL_TERMS)

    def square(result: Array, count: Array) -> tuple[Array, None]:
        return jnp.where(count < halvings, contract("...ij,...jk->...ik", result, result), result), None

    result = lax.scan(square, result, jnp.arange(_MOST_SQUARINGS, dtype=matrix.dtype))[0]
    return jnp.where(halvings <= _MOST_SQUARINGS, result, jnp.nan)


def _power_series(matrix: Array, terms: int) -> Array:
    """sum_{p=0}^{terms-1} A^p / p!, by Horner's rule."""
    identity = lifted(jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.ndim)

    def step(result: Array, power: Array) -> tuple[Array, None]:
        return identity + contract("...ij,...jk->...ik", matrix, result) / power, None

    powers = jnp.arange(terms - 1, 0, -1, dtype=matrix.dtype)
    return lax.scan(step, jnp.broadcast_to(identity, matrix.shape), powers)[0]


def largest_eigenvalue(matrix: Float[Array, "*batch J J"], steps: int = 16) -> Float[Array, "*batch"]:
    """The largest eigenvalue of a matrix, at least one, as two runs of a power iteration estimate it.

    The first run finds an end of the spectrum of A - I. If that is the lower end (its Rayleigh quotient m is
    negative), the second run looks from there: on A - (1 + m) I the upper end dominates. The estimate, and with it
    the gradient, is only as good as the iteration.

    Args:
        matrix: the matrices A; the estimate is meant for symmetric ones.
        steps: steps of each of the two runs.

    Returns:
        The estimates e >= 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> from plstm_jax.functional import largest_eigenvalue
        >>> round(float(largest_eigenvalue(jnp.diag(jnp.array([1.0, 3.0, -2.0])), steps=50)), 2)
        3.0
    """
    identity = lifted(jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.ndim)
    shifted = matrix - identity
    vector = _iterate(shifted, jnp.ones_like(matrix[..., 0]), steps)
    offset = 1.0 + jnp.minimum(_rayleigh(shifted, vector), 0.0)
    shifted = matrix - offset[..., None, None] * identity
    vector = _iterate(shifted, vector, steps)
    return jnp.maximum(_rayleigh(shifted, vector) + offset, 1.0)


def eigenvalue_restriction(matrix: Float[Array, "*batch J J"], steps: int = 16) -> Float[Array, "*batch J J"]:
    """A matrix divided by the estimate of its largest eigenvalue where that exceeds one.

    Examples:
        >>> import jax.numpy as jnp
        >>> from plstm_jax.functional import eigenvalue_restriction
        >>> restricted = eigenvalue_restriction(jnp.diag(jnp.array([10.0, 2.0])), steps=50)
        >>> bool((jnp.abs(jnp.diag(restricted)) <= 1.01).all())
        True
    """
    return _unless_identity(matrix, matrix, matrix / largest_eigenvalue(matrix, steps)[..., None, None])


def singularvalue_restriction(matrix: Float[Array, "*batch J J"], steps: int = 16) -> Float[Array, "*batch J J"]:
    """A matrix divided by the estimate of its spectral norm where that exceeds one.

    The estimate is the root of the largest eigenvalue of A A^T, so the bound holds to the accuracy of the iteration.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from plstm_jax.functional import singularvalue_restriction
        >>> restricted = singularvalue_restriction(10 * jax.random.normal(jax.random.key(0), (3, 3)), steps=50)
        >>> float(jnp.linalg.norm(restricted @ jnp.ones(3))) < 1.8
        True
    """
    square = contract("...ij,...kj->...ik", matrix, matrix)
    return _unless_identity(matrix, square, matrix / jnp.sqrt(largest_eigenvalue(square, steps))[..., None, None])


NORMALIZATIONS: Mapping[str, Callable[[Array, int, float, str], Array]] = {
    "qr": lambda matrix, order, factor, exponential: qr(matrix),
    "householder_orthogonalization": lambda matrix, order, factor, exponential: householder_orthogonalization(matrix),
    "exponential_orthogonalization": lambda matrix, order, factor, exponential: exponential_orthogonalization(
        matrix, factor, order if exponential == "series" else None
    ),
    "eigenvalue_restriction": lambda matrix, order, factor, exponential: eigenvalue_restriction(matrix, order),
    "singularvalue_restriction": lambda matrix, order, factor, exponential: singularvalue_restriction(matrix, order),
}


def normalize(
    matrix: Float[Array, "*batch J J"], mode: str, order: int = 16, factor: float = 1.0, exponential: str = "exact"
) -> Float[Array, "*batch J J"]:
    """Normalise matrices.

    Args:
        matrix: any real square matrices, float32 or float64.
        mode: a key of `NORMALIZATIONS`.
        order: orthogonalization_order, the number of series terms or power iterations.
        factor: orthogonalization_factor, scales the skew matrix of the exponential.
        exponential: "exact", or "series" for the truncated sum.

    Returns:
        The normalised matrices.

    Raises:
        ValueError: if the mode or the kind of exponential is unknown.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from plstm_jax.functional import normalize
        >>> q = normalize(jax.random.normal(jax.random.key(0), (4, 3, 3)), mode="qr")
        >>> bool(jnp.allclose(q.mT @ q, jnp.eye(3), atol=1e-5))
        True
    """
    check_choice("mode", mode, NORMALIZATIONS)
    check_choice("exponential", exponential, ("exact", "series"))
    return NORMALIZATIONS[mode](matrix, order, factor, exponential)


def _norm(vector: Array) -> Array:
    """Length along the last axis, kept; its gradient at zero is zero."""
    squared = jnp.sum(vector * vector, axis=-1, keepdims=True)
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)


def _iterate(matrix: Array, vector: Array, steps: int) -> Array:
    def step(vector: Array, _: None) -> tuple[Array, None]:
        moved = contract("...ij,...j->...i", matrix, vector)
        return moved / (_norm(moved) + _POWER_EPSILON), None

    return lax.scan(step, vector, length=steps)[0]


def _rayleigh(matrix: Array, vector: Array) -> Array:
    return jnp.sum(vector * contract("...ij,...j->...i", matrix, vector), axis=-1)


def _unless_identity(matrix: Array, reference: Array, restricted: Array) -> Array:
    """The matrix itself where the reference is the identity: there the iteration has no direction to find."""
    identity = lifted(jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.ndim)
    distance = jnp.sum(jnp.abs(reference - identity), axis=(-2, -1), keepdims=True)
    return jnp.where(distance < _POWER_EPSILON, matrix, restricted)
