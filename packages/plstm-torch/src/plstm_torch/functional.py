"""Pure functions of the gates and of the transition: activations and normalisations of matrices.

All of them compute in the dtype that they are given; the layers give float32 or higher.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from plstm_config.options import unknown
from plstm_torch.ops._exporting import is_exporting

_EXPONENT_LIMIT = 80.0  # exp(80) is finite in float32; an exponential decay of more is exactly zero anyway
_ORTHONORMAL_STABILIZER = 1e-5
_SQUARINGS, _TERMS = 6, 20  # of a matrix exponential in exported programs
_ITERATION_STABILIZER = 1e-3


def gate_activation(z: Float[Tensor, "*shape"], activation: str, scale: float) -> Float[Tensor, "*shape"]:
    """Activation of Source, Mark and Direct.

    identity z, tanh a tanh(z / a), logsigmoid exp(a logsigmoid(z)), with a the scale.

    Args:
        z: Pre-activations, any shape.
        activation: one of "identity", "tanh", "logsigmoid".
        scale: the activation scale a, without effect on identity.

    Returns:
        The gates, of the shape and dtype of z.

    Raises:
        ValueError: if the activation is unknown.

    Examples:
        >>> import torch
        >>> from plstm_torch.functional import gate_activation
        >>> gate_activation(torch.tensor([0.0, 100.0]), "tanh", scale=2.0)
        tensor([0., 2.])
    """
    if activation == "identity":
        return z
    if activation == "tanh":
        return scale * torch.tanh(z / scale)
    if activation == "logsigmoid":
        return torch.sigmoid(z) if scale == 1.0 else torch.exp(scale * F.logsigmoid(z))
    raise unknown("activation", activation, ("identity", "tanh", "logsigmoid"))


def eigenvalue_activation(z: Float[Tensor, "*shape"], representation: str, factor: float) -> Float[Tensor, "*shape"]:
    """Eigenvalues (or singular values) of a transition, of magnitude at most one.

    logsigmoid exp(f logsigmoid(z)), expexp exp(-f exp(-z)), tanh tanh(f z), with f the factor.

    Args:
        z: Pre-activations, any shape.
        representation: one of "logsigmoid", "expexp", "tanh".
        factor: the eigenvalue factor f.

    Returns:
        The eigenvalues, of the shape and dtype of z.

    Raises:
        ValueError: if the representation is unknown.

    Examples:
        >>> import torch
        >>> from plstm_torch.functional import eigenvalue_activation
        >>> eigenvalue_activation(torch.tensor([-9.0, 0.0, 9.0]), "tanh", factor=5.0)
        tensor([-1.,  0.,  1.])
    """
    if representation == "tanh":
        return torch.tanh(factor * z)
    if representation == "logsigmoid":
        return torch.exp(factor * F.logsigmoid(z))
    if representation == "expexp":
        # Without the limit the gradient is zero times infinity where the eigenvalue has long vanished.
        return torch.exp(-factor * torch.exp(-z.clamp(min=-_EXPONENT_LIMIT)))
    raise unknown("representation", representation, ("tanh", "logsigmoid", "expexp"))


def qr(matrix: Float[Tensor, "*batch J J"]) -> Float[Tensor, "*batch J J"]:
    """Q of the decomposition A = Q R, with the signs that LAPACK returns (R's diagonal may be negative).

    Examples:
        >>> import torch
        >>> from plstm_torch.functional import qr
        >>> q = qr(torch.randn(5, 3, 3))
        >>> torch.allclose(q.mT @ q, torch.eye(3).expand(5, 3, 3), atol=1e-5)
        True
    """
    return torch.linalg.qr(matrix)[0]


def householder_orthogonalization(matrix: Float[Tensor, "*batch J J"]) -> Float[Tensor, "*batch J J"]:
    """Minus the product of the reflections along the rows of a matrix.

    u_i = A[i] / (|A[i]| + 1e-5), result -(I - 2 u_0 u_0^T) ... (I - 2 u_{J-1} u_{J-1}^T), for any J.

    Examples:
        >>> import torch
        >>> from plstm_torch.functional import householder_orthogonalization
        >>> q = householder_orthogonalization(torch.randn(3, 3, dtype=torch.float64))
        >>> torch.allclose(q.mT @ q, torch.eye(3, dtype=torch.float64), atol=1e-4)
        True
    """
    norms = torch.linalg.vector_norm(matrix, dim=-1, keepdim=True)
    directions = matrix / (norms + _ORTHONORMAL_STABILIZER)
    product = -torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    for direction in directions.unbind(-2):
        along = (product * direction.unsqueeze(-2)).sum(-1, keepdim=True)
        product = product - 2.0 * along * direction.unsqueeze(-2)
    return product


def exponential_orthogonalization(
    matrix: Float[Tensor, "*batch J J"], factor: float, terms: int | None = None
) -> Float[Tensor, "*batch J J"]:
    """Exponential of the skew-symmetric part of a matrix: exp(g (A - A^T)), with g the factor.

    Args:
        matrix: the matrices A.
        factor: the factor g.
        terms: none for the exact exponential, which is orthogonal. Otherwise the number n of terms of the series
            sum_{p=0}^{n-1} K^p / p!, which is not orthogonal for large K: with 16 terms a Frobenius norm of 12 gives
            a spectral norm of 26.

    Returns:
        The exponentials.

    Examples:
        >>> import torch
        >>> from plstm_torch.functional import exponential_orthogonalization
        >>> q = exponential_orthogonalization(torch.randn(3, 3, dtype=torch.float64), factor=1.0, terms=None)
        >>> torch.allclose(q.mT @ q, torch.eye(3, dtype=torch.float64))
        True
    """
    skew = factor * (matrix - matrix.mT)
    if terms is None and is_exporting():
        return _exponential_by_squaring(skew)
    if terms is None:
        return torch.linalg.matrix_exp(skew.contiguous())  # torch views small matrices flat, and fails if it cannot
    return _exponential_series(skew, terms)


def _exponential_series(matrix: Tensor, terms: int) -> Tensor:
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    result = identity.expand(matrix.shape)
    for power in range(terms - 1, 0, -1):
        result = identity + matrix @ result / power
    return result


def _exponential_by_squaring(matrix: Tensor) -> Tensor:
    """The exponential in products alone, for runtimes that have no other; right for norms up to about 100."""
    result = _exponential_series(matrix / 2**_SQUARINGS, _TERMS)
    for _ in range(_SQUARINGS):
        result = result @ result
    return result


def _iterate(matrix: Tensor, vector: Tensor, steps: int) -> Tensor:
    for _ in range(steps):
        image = (matrix @ vector.unsqueeze(-1)).squeeze(-1)
        vector = image / (torch.linalg.vector_norm(image, dim=-1, keepdim=True) + _ITERATION_STABILIZER)
    return vector


def _rayleigh(matrix: Tensor, vector: Tensor) -> Tensor:
    return (vector * (matrix @ vector.unsqueeze(-1)).squeeze(-1)).sum(-1)


def largest_eigenvalue(matrix: Float[Tensor, "*batch J J"], steps: int) -> Float[Tensor, "*batch"]:
    """The largest eigenvalue of a matrix, at least one, as two runs of a power iteration estimate it.

    The first run finds an end of the spectrum of A - I. If that is the lower end (its Rayleigh quotient m is
    negative), the second run looks from there: on A - (1 + m) I the upper end dominates.

    The estimate is only as good as the iteration, which starts from the vector of ones. It is ill-conditioned where
    the first run converges, since the second then grows out of what was left of the other directions, in the end
    rounding errors. The gradient is the exact derivative of the iteration and can be large there: for one in a
    thousand random 4 x 4 matrices its norm exceeds 1,000 (eigenvalue_restriction) or 60 (singularvalue_restriction).

    Args:
        matrix: the matrices A; the estimate is meant for symmetric ones.
        steps: steps of each of the two runs.

    Returns:
        The estimates e >= 1.

    Examples:
        >>> import torch
        >>> from plstm_torch.functional import largest_eigenvalue
        >>> round(float(largest_eigenvalue(torch.diag(torch.tensor([1.0, 3.0, -2.0])), steps=50)), 2)
        3.0
    """
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    shifted = matrix - identity
    vector = _iterate(shifted, torch.ones_like(matrix[..., 0]), steps)
    end = _rayleigh(shifted, vector)
    offset = 1.0 + end.clamp(max=0.0)
    shifted = matrix - offset[..., None, None] * identity
    vector = _iterate(shifted, vector, steps)
    return (_rayleigh(shifted, vector) + offset).clamp(min=1.0)


def _unless_identity(matrix: Tensor, reference: Tensor, restricted: Tensor) -> Tensor:
    """The matrix itself where the reference is the identity: there the iteration has no direction to find."""
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    distance = (reference - identity).abs().sum((-2, -1), keepdim=True)
    return torch.where(distance < _ITERATION_STABILIZER, matrix, restricted)


def eigenvalue_restriction(matrix: Float[Tensor, "*batch J J"], steps: int) -> Float[Tensor, "*batch J J"]:
    """A matrix divided by the estimate of its largest eigenvalue where that exceeds one.

    This bounds the spectral norm only of symmetric positive matrices: others can pass with a norm of several. Use an
    orthogonalisation where the transition must be bounded.

    Examples:
        >>> import torch
        >>> from plstm_torch.functional import eigenvalue_restriction
        >>> restricted = eigenvalue_restriction(torch.diag(torch.tensor([10.0, 2.0])), steps=50)
        >>> bool((restricted.diagonal() < 1.01).all())
        True
    """
    restricted = matrix / largest_eigenvalue(matrix, steps)[..., None, None]
    return _unless_identity(matrix, matrix, restricted)


def singularvalue_restriction(matrix: Float[Tensor, "*batch J J"], steps: int) -> Float[Tensor, "*batch J J"]:
    """A matrix divided by the estimate of its spectral norm where that exceeds one.

    The estimate is the root of the largest eigenvalue of A A^T, so the bound holds to the accuracy of the iteration.

    Examples:
        >>> import torch
        >>> from plstm_torch.functional import singularvalue_restriction
        >>> restricted = singularvalue_restriction(10 * torch.randn(3, 3, dtype=torch.float64), steps=50)
        >>> float(torch.linalg.matrix_norm(restricted, ord=2)) < 1.01
        True
    """
    gram = matrix @ matrix.mT
    restricted = matrix / largest_eigenvalue(gram, steps).sqrt()[..., None, None]
    return _unless_identity(matrix, gram, restricted)
