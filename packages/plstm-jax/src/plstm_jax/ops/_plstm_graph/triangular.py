"""The inverse of unit triangular matrices, made of products.

LAPACK has a solve for it, but on CPU two of XLA's batched calls of LAPACK that run at once may wait for each other
forever; and products have derivatives of any order that are products again.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array

from plstm_jax.ops.arrays import contract

# Up to this size the powers of the matrix are fewer products than halving it.
_SMALL = 8


def inverse_of_unit_lower(strict: Array) -> Array:
    """(I - T)^-1 of strictly lower triangular T [..., n, n]."""
    size = strict.shape[-1]
    return _inverses(strict.reshape(math.prod(strict.shape[:-2]), size, size)).reshape(strict.shape)


def _inverses(strict: Array) -> Array:
    """The inverses of matrices [M, n, n], halves of the diagonal first.

    With A and C the inverses of the halves and B what stands below the first, the inverse is [[A, 0], [C B A, C]].
    The halves of all matrices are inverted at once, so the number of products is the number of halvings.
    """
    count, size, _ = strict.shape
    if size <= _SMALL:
        return _by_powers(strict)
    half = -(-size // 2)
    odd = 2 * half - size
    strict = jnp.pad(strict, [(0, 0), (0, odd), (0, odd)])
    halves = _inverses(jnp.concatenate([strict[:, :half, :half], strict[:, half:, half:]]))
    first, second = halves[:count], halves[count:]
    below = contract("mij,mjk->mik", second, contract("mij,mjk->mik", strict[:, half:, :half], first))
    upper = jnp.pad(first, [(0, 0), (0, 0), (0, half)])
    inverse = jnp.concatenate([upper, jnp.concatenate([below, second], -1)], 1)
    return inverse[:, :size, :size]


def _by_powers(strict: Array) -> Array:
    """(I + T) (I + T^2) (I + T^4) ..., as far as the powers of T are not zero."""
    size = strict.shape[-1]
    power, inverse, order = strict, jnp.eye(size, dtype=strict.dtype)[None] + strict, 2
    while order < size:
        power = contract("mij,mjk->mik", power, power)
        inverse = inverse + contract("mij,mjk->mik", inverse, power)
        order *= 2
    return inverse
