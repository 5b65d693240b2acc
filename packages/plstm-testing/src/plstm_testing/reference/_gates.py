"""Gates and projections: how Source, Mark, Direct, Query, Key and Value come from the input."""

import math

import numpy as np
from jaxtyping import Float

from ._activations import ACTIVATIONS, elementwise

Array = np.ndarray

L2_EPSILON = 1e-5


def gate(
    x: Float[Array, "... D"],
    bias: Float[Array, " H *J"],
    weight: Float[Array, "P s *J d"] | None = None,
    activation: str = "identity",
    activation_scale: float = 1.0,
) -> Float[Array, "..."]:
    """A gate: bias plus a linear map of one sub-head's share of the input, through an activation.

    Head ``p * s + i`` sees the i-th of s equal parts of the input::

        z[p*s+i, J...] = bias[p*s+i, J...] + sum over d of weight[p,i,J...,d] x[i,d]

    and the activation is z itself, ``a tanh(z / a)``, or ``exp(a logsigmoid(z))``.

    Args:
        x: input, D = s * d.
        bias: one entry per head and state-tracking index.
        weight: none for a gate that does not see the input.
        activation: "identity", "tanh" or "logsigmoid".
        activation_scale: a.

    Returns:
        The gate at every position.

    Raises:
        ValueError: if the activation is unknown.
    """
    x, bias = np.asarray(x, np.float64), np.asarray(bias, np.float64)
    result = np.zeros((*x.shape[:-1], *bias.shape))
    for position in np.ndindex(x.shape[:-1]):
        result[position] = bias
        if weight is None:
            continue
        parts = x[position].reshape(weight.shape[1], -1)
        for p, i in np.ndindex(weight.shape[:2]):
            result[(*position, p * weight.shape[1] + i)] += (weight[p, i] * parts[i]).sum(axis=-1)
    a = activation_scale
    if activation == "identity":
        return result
    if activation == "tanh":
        return elementwise(lambda z: a * math.tanh(z / a), result)
    if activation == "logsigmoid":
        return elementwise(lambda z: math.exp(a * ACTIVATIONS["logsigmoid"](z)), result)
    raise ValueError(f"activation: expected one of ['identity', 'logsigmoid', 'tanh'], got {activation!r}")


# Source [H,JT,JK,JV], Mark [H,JO,JQ,JT] and Direct [H,JO,JQ,JK,JV] differ in their state-tracking dimensions only.
source = mark = direct = gate


def projection(
    x: Float[Array, "... D"],
    weight: Float[Array, "P K J s d"],
    bias: Float[Array, "H DK J"] | None = None,
    normalization: str = "none",
) -> Float[Array, "... H DK J"]:
    """Query, Key or Value: every sub-head maps its share of the input to its share of the outputs.

    ``out[p,i,k,j] = sum over d of weight[p,k,j,i,d] x[i,d]``, read in the order p, i, k as [H, DK], plus the bias,
    then, with "l2", divided by ``sqrt(mean(out**2 over J) + 1e-5)``.

    Args:
        x: input, D = s * d.
        weight: P * s * K = H * DK.
        bias: none for none.
        normalization: "none" or "l2".

    Returns:
        The projection at every position. Without a bias its shape is [..., P, s * K, J].

    Raises:
        ValueError: if the normalization is unknown.
    """
    if normalization not in ("none", "l2"):
        raise ValueError(f"normalization: expected 'none' or 'l2', got {normalization!r}")
    x, weight = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    outer, inner, last, parts, _ = weight.shape
    shape = (outer, parts * inner, last) if bias is None else np.shape(bias)
    result = np.zeros((*x.shape[:-1], *shape))
    for position in np.ndindex(x.shape[:-1]):
        shares = x[position].reshape(parts, -1)
        mapped = np.zeros((outer, parts, inner, last))
        for p, i, k, j in np.ndindex(mapped.shape):
            mapped[p, i, k, j] = np.sum(weight[p, k, j, i] * shares[i])
        result[position] = mapped.reshape(shape)
        if bias is not None:
            result[position] += bias
    if normalization == "l2":
        result = result / np.sqrt(np.mean(np.square(result), axis=-1, keepdims=True) + L2_EPSILON)
    return result
