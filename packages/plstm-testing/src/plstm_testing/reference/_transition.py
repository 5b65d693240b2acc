"""The transition layer: a bounded matrix per head and position."""

import math
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from ._activations import ACTIVATIONS, elementwise
from ._gates import gate
from ._orthogonal import normalize

Array = np.ndarray

EIGENVALUES: Mapping[str, Callable[[float, float], float]] = {
    "logsigmoid": lambda z, factor: math.exp(factor * ACTIVATIONS["logsigmoid"](z)),
    "expexp": lambda z, factor: math.exp(-factor * math.exp(-z)),
    "tanh": lambda z, factor: math.tanh(factor * z),
}


def transition(
    x: Float[Array, "... D"],
    eigenvalues_bias: Float[Array, "H J"],
    eigenvalues_weight: Float[Array, "P s J d"] | None = None,
    inproj_bias: Float[Array, "H J J"] | None = None,
    inproj_weight: Float[Array, "P s J J d"] | None = None,
    outproj_bias: Float[Array, "H J J"] | None = None,
    outproj_weight: Float[Array, "P s J J d"] | None = None,
    *,
    eigenvalue_representation: str = "tanh",
    eigenvalue_factor: float = 5.0,
    normalization_mode: str = "exponential_orthogonalization",
    orthogonalization_order: int = 16,
    orthogonalization_factor: float = 1.0,
    matrix_exponential: str = "exact",
) -> Float[Array, "... H J J"]:
    """Transition ``T = U diag(lam) V``, each factor a function of the input.

    ``lam`` is the limited eigenvalue gate: ``exp(f logsigmoid(z))``, ``exp(-f exp(-z))`` or ``tanh(f z)``.
    V is the normalised input projection; U the normalised output projection, or ``V^T`` where there is none
    (the symmetric form). With J = 1 only ``lam`` remains.

    Args:
        x: input.
        eigenvalues_bias: bias of z.
        eigenvalues_weight: none for eigenvalues that do not see the input.
        inproj_bias: none where J = 1.
        inproj_weight: as `eigenvalues_weight`.
        outproj_bias: none for the symmetric form.
        outproj_weight: as `eigenvalues_weight`.
        eigenvalue_representation: "tanh", "logsigmoid" or "expexp".
        eigenvalue_factor: f.
        normalization_mode: see `normalize`.
        orthogonalization_order: see `normalize`.
        orthogonalization_factor: see `normalize`.
        matrix_exponential: see `normalize`.

    Returns:
        The transition at every position.

    Raises:
        ValueError: if the representation or the normalization is unknown.

    Source:
        The state-tracking transition of the pLSTM paper.
    """
    if eigenvalue_representation not in EIGENVALUES:
        raise ValueError(
            f"eigenvalue_representation: expected one of {sorted(EIGENVALUES)}, got {eigenvalue_representation!r}"
        )
    limit = EIGENVALUES[eigenvalue_representation]
    z = gate(x, eigenvalues_bias, eigenvalues_weight)
    eigenvalues = elementwise(lambda entry: limit(entry, eigenvalue_factor), z)
    if inproj_bias is None:
        return eigenvalues[..., None]
    options = (normalization_mode, orthogonalization_order, orthogonalization_factor, matrix_exponential)
    inner = gate(x, inproj_bias, inproj_weight)
    outer = None if outproj_bias is None else gate(x, outproj_bias, outproj_weight)
    result = np.zeros_like(inner)
    for position in np.ndindex(eigenvalues.shape[:-1]):
        v = normalize(inner[position], *options)
        u = v.T if outer is None else normalize(outer[position], *options)
        for a, b, c in np.ndindex(*v.shape, len(v)):
            result[(*position, a, c)] += u[a, b] * eigenvalues[(*position, b)] * v[b, c]
    return result
