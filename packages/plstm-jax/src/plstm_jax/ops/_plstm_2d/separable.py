"""D-mode without state-tracking dimensions: a path turns at most once, which gives closed forms."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from plstm_jax.ops._plstm_2d.problem import Flips, Gates
from plstm_jax.ops.arrays import contract, lifted
from plstm_jax.ops.lines import scalar_decay


class SeparableMaps(NamedTuple):
    """`BorderMaps` without their zeros: what comes from the left stays in its row, what leaves below in its column."""

    read_left: Array  # [..., O, X, Y]
    read_top: Array  # [..., O, X * Y, 1, 1, X]
    write_right: Array  # [..., O, X * Y, 1, 1, Y]
    write_bottom: Array  # [..., O, X, Y]
    right_of_left: Array  # [..., O, Y]
    right_of_top: Array  # [..., O, Y, X]
    bottom_of_top: Array  # [..., O, X]


class _Decays(NamedTuple):
    """Products of the transitions along lines [..., O, L, n]; places in the order of the image."""

    between: Array  # [..., O, L, n, n], from what leaves the second place to what arrives at the first
    start: Array  # [..., O, L, n], from the start of the line
    end: Array  # [..., O, L, n], to its end
    whole: Array  # [..., O, L]


def separable_factors(gates: Gates, direct: Array, flips: Flips) -> tuple[Array, Array]:
    """What `separable_mask` makes the closed form of gates without `transition_dl` from, orientations summed.

    For a given source column u and target row y the matrix has rank one in (x, v) per orientation. What stays in its
    column is one more such product.

    Args:
        gates: [..., O, X, Y].
        direct: [..., X, Y].
        flips: which way each orientation walks.

    Returns:
        reading [..., O + 1, X, Y, X] and turning [..., O + 1, Y, X, Y].
    """
    return _factors(gates, direct, _across(gates, flips), _down(gates, flips))


def separable_responses(gates: Gates, direct: Array, flips: Flips) -> tuple[Array, SeparableMaps]:
    """The whole mask, and the maps from and to the borders of the grid.

    Args:
        gates: see `separable_factors`.
        direct: see `separable_factors`.
        flips: see `separable_factors`.

    Returns:
        [..., X, Y, X, Y], and the maps of each orientation.
    """
    *lead, x, y = gates.source_r.shape
    across, down = _across(gates, flips), _down(gates, flips)
    own_column = jnp.eye(x, dtype=direct.dtype)[:, None, :]
    read_top = (gates.upper_mark * down.start)[..., None]
    read_top = read_top * lifted(own_column, read_top.ndim)
    right_of_top = jnp.zeros((*lead, y, x), direct.dtype)
    if gates.transition_ru is not None:
        turned = jnp.swapaxes(gates.transition_ru * down.start, -1, -2)
        right_of_top = across.end * turned
        arriving = jnp.swapaxes(across.between * turned[..., None, :], -3, -2)
        read_top = read_top + gates.mark_l[..., None] * arriving
    turning = _turning(gates, _arriving(gates, down))
    write_right = jnp.swapaxes(turning, -1, -2) * jnp.swapaxes(across.end, -1, -2)[..., None, :]
    return separable_mask(*_factors(gates, direct, across, down)), SeparableMaps(
        read_left=gates.mark_l * jnp.swapaxes(across.start, -1, -2),
        read_top=read_top.reshape(*lead, x * y, 1, 1, x),
        write_right=write_right.reshape(*lead, x * y, 1, 1, y),
        write_bottom=gates.source_d * down.end,
        right_of_left=across.whole,
        right_of_top=right_of_top,
        bottom_of_top=down.whole,
    )


def _across(gates: Gates, flips: Flips) -> _Decays:
    return _decays(jnp.swapaxes(gates.transition_rl, -1, -2), [flip.x for flip in flips])


def _down(gates: Gates, flips: Flips) -> _Decays:
    return _decays(gates.transition_du, [flip.y for flip in flips])


def _decays(transition: Array, walks: list[bool]) -> _Decays:
    decay = scalar_decay(transition)
    between, start, end = decay[..., :-1, 1:], decay[..., :-1, 0], decay[..., -1, 1:]
    if any(walks):
        backward = jnp.array(walks).reshape(-1, 1, 1)
        between = jnp.where(lifted(backward[..., None], between.ndim), jnp.swapaxes(between, -1, -2), between)
        backward = lifted(backward, start.ndim)
        start, end = jnp.where(backward, end, start), jnp.where(backward, start, end)
    return _Decays(between, start, end, decay[..., -1, 0])


def _arriving(gates: Gates, down: _Decays) -> Array:
    """The d states of a column [..., O, u, y, v] from its own sources."""
    return down.between * gates.source_d[..., None, :]


def _turning(gates: Gates, arriving: Array) -> Array:
    """What leaves a column to the right [..., O, u, y, v], from its own sources."""
    turning = gates.source_r[..., None] * lifted(jnp.eye(arriving.shape[-1], dtype=arriving.dtype), arriving.ndim)
    return turning if gates.transition_ru is None else turning + gates.transition_ru[..., None] * arriving


def _factors(gates: Gates, direct: Array, across: _Decays, down: _Decays) -> tuple[Array, Array]:
    x, y = direct.shape[-2:]
    arriving = _arriving(gates, down)
    turning = _turning(gates, arriving)
    staying = direct[..., None] * lifted(jnp.eye(y, dtype=direct.dtype), direct.ndim + 1)
    for orientation in range(gates.mark_l.shape[-3]):
        staying = staying + (gates.upper_mark[..., None] * arriving)[..., orientation, :, :, :]
    reading = gates.mark_l[..., None] * jnp.swapaxes(across.between, -3, -2)
    stay = jnp.broadcast_to(jnp.eye(x, dtype=direct.dtype)[:, None, :], (*reading.shape[:-4], 1, x, y, x))
    turning = jnp.concatenate([turning, staying[..., None, :, :, :]], -4)
    return jnp.concatenate([reading, stay], -4), jnp.swapaxes(turning, -3, -2)


@jax.custom_jvp
def separable_mask(left: Array, right: Array) -> Array:
    """G[x, y, u, v] = sum over o of left[o, x, y, u] right[o, y, u, v], the columns x all or some.

    As a sum of products it fuses with whatever reads it, so that it never lies in memory; but what the factors are made
    of must not be computed again for every entry. Its derivatives are sums over an axis of the grid, for which the
    compiler has fast code in the form of matrix products only.
    """
    left, right = lax.optimization_barrier((left, right))
    return sum(left[..., o, :, :, :, None] * right[..., o, None, :, :, :] for o in range(left.shape[-4]))  # type: ignore[return-value]


@separable_mask.defjvp
def _mask_tangent(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (left, right), (d_left, d_right) = primals, tangents
    return separable_mask(left, right), _outer_product(d_left, right) + _outer_product(left, d_right)


def _outer_product(left: Array, right: Array) -> Array:
    """`separable_mask` as a matrix product for every target row y and source column u."""
    left = jnp.moveaxis(left, (-2, -1, -3, -4), (-4, -3, -2, -1))
    right = jnp.moveaxis(right, (-3, -2, -4), (-4, -3, -2))
    return jnp.moveaxis(contract("...xo,...ov->...xv", left, right), -2, -4)
