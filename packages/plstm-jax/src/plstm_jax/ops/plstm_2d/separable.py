"""D-mode without state-tracking dimensions: a path turns at most once, which gives closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax

from plstm_jax.ops.arrays import contract
from plstm_jax.ops.lines import scalar_decay
from plstm_jax.ops.plstm_2d.problem import Flips, Gates


def decays(transition: Array, walks: list[bool]) -> tuple[Array, Array, Array, Array]:
    """Products of the transitions between any two places of lines; indices in the order of the image.

    Args:
        transition: [..., O, L, n], lines of n places.
        walks: whether an orientation walks its lines backwards.

    Returns:
        between [..., O, L, n, n], from what leaves the second place to what arrives at the first, zero where that does
        not lie behind; from the start of the line [..., O, L, n]; to its end [..., O, L, n]; and in whole [..., O, L].
    """
    decay = scalar_decay(transition)
    between, start, end = decay[..., :-1, 1:], decay[..., :-1, 0], decay[..., -1, 1:]
    if any(walks):
        backward = jnp.array(walks).reshape(-1, 1, 1)
        between = jnp.where(backward[..., None], jnp.swapaxes(between, -1, -2), between)
        start, end = jnp.where(backward, end, start), jnp.where(backward, start, end)
    return between, start, end, decay[..., -1, 0]


def separable_gating(gates: Gates, direct: Array, flips: Flips) -> Array:
    """The closed form of gates without `transition_dl`, orientations summed.

    For a given source column u and target row y the matrix has rank one in (x, v) per orientation. What stays in its
    column is one more such product.

    Args:
        gates: [..., O, X, Y].
        direct: [..., X, Y].
        flips: which way each orientation walks.

    Returns:
        [..., X, Y, X, Y].
    """
    x, y = direct.shape[-2:]
    across = decays(jnp.swapaxes(gates.transition_rl, -1, -2), [flip.x for flip in flips])[0]  # [..., O, y, x, u]
    down = decays(gates.transition_du, [flip.y for flip in flips])[0]  # [..., O, u, y, v]
    arriving = down * gates.source_d[..., None, :]
    turning = gates.source_r[..., None] * jnp.eye(y, dtype=direct.dtype)
    if gates.transition_ru is not None:
        turning = turning + gates.transition_ru[..., None] * arriving
    staying = direct[..., None] * jnp.eye(y, dtype=direct.dtype)
    for orientation in range(len(flips)):
        staying = staying + (gates.mark_u[..., None] * arriving)[..., orientation, :, :, :]
    reading = gates.mark_l[..., None] * jnp.swapaxes(across, -3, -2)
    stay = jnp.broadcast_to(jnp.eye(x, dtype=direct.dtype)[:, None, :], (*reading.shape[:-4], 1, x, y, x))
    turning = jnp.concatenate([turning, staying[..., None, :, :, :]], -4)
    return _outer(jnp.concatenate([reading, stay], -4), jnp.swapaxes(turning, -3, -2))


@jax.custom_jvp
def _outer(left: Array, right: Array) -> Array:
    """G[x, y, u, v] = sum over o of left[o, x, y, u] right[o, y, u, v].

    As a sum of products it fuses with whatever reads it, so that it never lies in memory; but what the factors are made
    of must not be computed again for every entry. Its derivatives are sums over an axis of the grid, for which the
    compiler has fast code in the form of matrix products only.
    """
    left, right = lax.optimization_barrier((left, right))
    return sum(left[..., o, :, :, :, None] * right[..., o, None, :, :, :] for o in range(left.shape[-4]))  # type: ignore[return-value]


@_outer.defjvp
def _outer_tangent(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (left, right), (d_left, d_right) = primals, tangents
    return _outer(left, right), _outer_product(d_left, right) + _outer_product(left, d_right)


def _outer_product(left: Array, right: Array) -> Array:
    """`_outer` as a matrix product for every target row y and source column u."""
    left = jnp.moveaxis(left, (-2, -1, -3, -4), (-4, -3, -2, -1))
    right = jnp.moveaxis(right, (-3, -2, -4), (-4, -3, -2))
    return jnp.moveaxis(contract("...xo,...ov->...xv", left, right), -2, -4)
