"""How gates, queries, keys, values and transitions come from the input."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from plstm_config.options import check_choice
from plstm_jax.functional.activations import eigenvalue_activation, gate_activation
from plstm_jax.functional.orthogonal import normalize
from plstm_jax.ops.arrays import common_dtype, contract, lifted

_L2_EPSILON = 1e-5


def gate(
    x: Float[Array, "... D"],
    bias: Float[Array, " H *J"],
    weight: Float[Array, "P s *J d"] | None = None,
    activation: str = "identity",
    activation_scale: float = 1.0,
) -> Float[Array, "... H *J"]:
    """A gate: bias plus a linear map of one sub-head's share of the input, through an activation.

    Head ``p * s + i`` sees the i-th of s equal parts of the input::

        z[p*s+i, J...] = bias[p*s+i, J...] + sum over d of weight[p,i,J...,d] x[i,d]

    Args:
        x: input, D = s * d.
        bias: one entry per head and state-tracking index.
        weight: none for a gate that does not see the input.
        activation: see `gate_activation`.
        activation_scale: see `gate_activation`.

    Returns:
        The gate at every position.

    Raises:
        ValueError: if the activation is unknown.

    Examples:
        >>> import jax.numpy as jnp
        >>> from plstm_jax.functional import gate
        >>> heads, bias = 2, jnp.zeros((2, 3, 1, 1))  # H, JT, JK, JV
        >>> gate(jnp.ones((5, 8)), bias, jnp.ones((1, heads, 3, 1, 1, 4))).shape
        (5, 2, 3, 1, 1)
    """
    if weight is None:
        z = jnp.broadcast_to(bias, (*x.shape[:-1], *bias.shape))
    else:
        outer, parts, *_, inner = weight.shape
        flat = weight.reshape(outer, parts, bias[0].size, inner)
        shares = x.reshape(*x.shape[:-1], parts, inner)
        z = jnp.einsum("...id,pijd->...pij", shares, flat).reshape(*x.shape[:-1], *bias.shape)
        z = z + lifted(bias, z.ndim)
    return gate_activation(z, activation, activation_scale)


def projection(
    x: Float[Array, "... D"],
    weight: Float[Array, "P K J s d"],
    bias: Float[Array, "H DK J"],
    normalization: str = "none",
) -> Float[Array, "... H DK J"]:
    """Query, Key or Value: every sub-head maps its share of the input to its share of the outputs.

    ``out[p,i,k,j] = sum over d of weight[p,k,j,i,d] x[i,d]``, read in the order p, i, k as [H, DK], plus the bias;
    then, with "l2", divided by ``sqrt(mean(out**2 over J) + 1e-5)``.

    Args:
        x: input, D = s * d.
        weight: P * s * K = H * DK.
        bias: added to the map.
        normalization: "none" or "l2".

    Returns:
        The projection at every position.

    Raises:
        ValueError: if the normalization is unknown.

    Examples:
        >>> import jax.numpy as jnp
        >>> from plstm_jax.functional import projection
        >>> weight, bias = jnp.ones((2, 4, 1, 1, 8)), jnp.zeros((2, 4, 1))  # P, DK, JK, s, d
        >>> projection(jnp.ones((5, 8)), weight, bias, normalization="l2").shape
        (5, 2, 4, 1)
    """
    check_choice("normalization", normalization, ("none", "l2"))
    *_, parts, inner = weight.shape
    shares = x.reshape(*x.shape[:-1], parts, inner)
    out = jnp.einsum("...id,pkjid->...pikj", shares, weight).reshape(*x.shape[:-1], *bias.shape)
    out = out + lifted(bias, out.ndim)
    if normalization == "none":
        return out
    wide = out.astype(common_dtype(out.dtype, jnp.float32))
    return (wide * lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + _L2_EPSILON)).astype(out.dtype)


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

    ``lam`` is the limited eigenvalue gate, V the normalised input projection, U the normalised output projection, or
    ``V^T`` where there is none (the symmetric form). With J = 1 only ``lam`` remains.

    Args:
        x: input.
        eigenvalues_bias: bias of the eigenvalues before their limit.
        eigenvalues_weight: none for eigenvalues that do not see the input.
        inproj_bias: none where J = 1.
        inproj_weight: as `eigenvalues_weight`.
        outproj_bias: none for the symmetric form.
        outproj_weight: as `eigenvalues_weight`.
        eigenvalue_representation: see `eigenvalue_activation`.
        eigenvalue_factor: see `eigenvalue_activation`.
        normalization_mode: see `normalize`.
        orthogonalization_order: see `normalize`.
        orthogonalization_factor: see `normalize`.
        matrix_exponential: see `normalize`.

    Returns:
        The transition at every position.

    Raises:
        ValueError: if the representation or the normalization is unknown.

    Examples:
        >>> import jax.numpy as jnp
        >>> from plstm_jax.functional import transition
        >>> transition(jnp.ones((5, 8)), jnp.full((2, 1), 10.0)).shape  # [..., H, JT, JT], here the same at every place
        (5, 2, 1, 1)

    Source:
        The state-tracking transition of the pLSTM paper.
    """
    z = gate(x, eigenvalues_bias, eigenvalues_weight)
    eigenvalues = eigenvalue_activation(z, eigenvalue_representation, eigenvalue_factor)
    if inproj_bias is None:
        return eigenvalues[..., None]
    options = (normalization_mode, orthogonalization_order, orthogonalization_factor, matrix_exponential)
    v = normalize(gate(x, inproj_bias, inproj_weight), *options)
    if outproj_bias is None:
        u = jnp.swapaxes(v, -1, -2)
    else:
        u = normalize(gate(x, outproj_bias, outproj_weight), *options)
    return contract("...ab,...bc->...ac", u * eigenvalues[..., None, :], v)
