"""What all ops share: the compute dtype, products of exact precision, and attention through a gating matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from plstm_config.checks import check_floating

Carry = TypeVar("Carry")
Arrays = TypeVar("Arrays")
Each = TypeVar("Each")


def compute_dtype(**arrays: Any) -> jnp.dtype:
    """The dtype that a call computes in: that of all its arrays together, and float32 at least.

    Args:
        **arrays: argument by name; None where an optional one is missing.

    Returns:
        The dtype.

    Raises:
        TypeError: if one is no dense array, or has no floating dtype of at least 16 bits.
    """
    dtypes = []
    for name, array in arrays.items():
        if array is None:
            continue
        described = isinstance(array, jax.ShapeDtypeStruct)
        if described or not hasattr(array, "dtype") or hasattr(array, "todense"):
            raise TypeError(f"{name}: expected a dense array, got {type(array).__name__}")
        floating = jnp.issubdtype(array.dtype, jnp.floating)
        check_floating(name, array.dtype, floating=floating, size=np.dtype(array.dtype).itemsize)
        dtypes.append(jax.dtypes.canonicalize_dtype(array.dtype))  # float64 counts as float32 unless x64 is enabled
    return common_dtype(*dtypes, jnp.float32)


def common_dtype(*dtypes: Any) -> jnp.dtype:
    """What dtypes promote to, stated once, so that callers may forbid what happens unstated."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*dtypes)


def scale_factor(scale: Any, default: float, dtype: jnp.dtype) -> Array:
    """The factor of the output.

    Args:
        scale: as `plstm_config.options.check_scale` lets it pass.
        default: in its place if it is None.
        dtype: of the factor.

    Returns:
        An array without dimensions.
    """
    factor = default if scale is None else scale
    return jnp.asarray(float(factor) if isinstance(factor, int) else factor, dtype)


def contract(indices: str, *operands: Array) -> Array:
    """A product summed over indices, in the full precision of the operands' dtype.

    Accelerators multiply float32 in fewer bits unless told otherwise, which the states of a long recurrence do not
    forgive. Whoever sets `jax.default_matmul_precision` decides for themselves. Sums over a single element, the
    rule without state tracking, become plain products, which fuse with their surroundings.
    """
    if _factors(indices, operands) is not None:
        return _product(indices, *operands)
    return _einsum(indices, *operands)


def _einsum(indices: str, *operands: Array) -> Array:
    precision = None if jax.config.jax_default_matmul_precision is not None else lax.Precision.HIGHEST  # type: ignore[attr-defined]
    lead = operands[0].ndim - len(indices.replace("...", "").split(",")[0])
    if lead <= 2:
        return jnp.einsum(indices, *operands, precision=precision)
    # XLA for CPU aborts on products of arrays with eight axes, which further axes of a vmap soon make.
    shape = operands[0].shape[:lead]
    flat = (array.reshape(math.prod(shape), *array.shape[lead:]) for array in operands)
    result = jnp.einsum(indices, *flat, precision=precision)
    return result.reshape(*shape, *result.shape[1:])


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _product(indices: str, *operands: Array) -> Array:
    """A contraction that sums nothing. Its derivatives do, and compilers have fast code for products only."""
    factors = _factors(indices, operands) or []
    return math.prod(factors[1:], start=factors[0])


@_product.defjvp
def _product_tangent(indices: str, primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    parts = [
        _einsum(indices, *primals[:place], tangent, *primals[place + 1 :]) for place, tangent in enumerate(tangents)
    ]
    return _product(indices, *primals), sum(parts[1:], start=parts[0])


def _factors(indices: str, operands: tuple[Array, ...]) -> list[Array] | None:
    """Arrays whose product is the contraction where no summed index has more than one element, else None."""
    given, result = indices.replace("...", "").split("->")
    lead = operands[0].ndim - len(given.split(",")[0])
    factors = []
    for letters, array in zip(given.split(","), operands, strict=True):
        if any(array.shape[lead + letters.index(letter)] != 1 for letter in set(letters) - set(result)):
            return None
        kept = "".join(letter for letter in letters if letter in result)
        if kept != "".join(letter for letter in result if letter in kept):
            return None
        summed = [lead + axis for axis, letter in enumerate(letters) if letter not in result]
        new = [lead + axis for axis, letter in enumerate(result) if letter not in kept]
        factors.append(lax.expand_dims(lax.squeeze(array, summed), new))
    return factors


def places(count: int) -> Array:
    """0, 1, ..., count - 1 as int32."""
    return jnp.arange(count, dtype=jnp.int32)


def lifted(array: Array, ndim: int) -> Array:
    """The array with axes of one element in front up to `ndim`, as broadcasting adds them unless that is forbidden."""
    return lax.expand_dims(array, range(ndim - array.ndim))


def only_finite(array: Array) -> Array:
    """The array with zeros for what is not finite."""
    return jnp.where(jnp.isfinite(array), array, jnp.zeros((), array.dtype))


def where_seen(scores: Array, rows: int, columns: int, *, own: bool) -> Array:
    """Scores of the places before each place, or up to it if `own`, and zero where zero times NaN would not be.

    Args:
        scores: [..., n, ..., m, ...].
        rows: the axis n, counted from the end.
        columns: the axis m, alike.
        own: whether a place sees itself.

    Returns:
        The scores.
    """
    row, column = (lax.broadcasted_iota(jnp.int32, scores.shape, scores.ndim + axis) for axis in (rows, columns))
    return jnp.where(column < row + int(own), scores, jnp.zeros((), scores.dtype))


@partial(jax.custom_jvp, nondiff_argnums=(0, 3))
def causal_product(indices: str, weights: Array, values: Array, own: bool) -> Array:
    """A contraction along a line: what arrives at a place from the values of the places before it.

    A plain contraction lets a value that is not finite reach every place, since zero times NaN is NaN. Here the values
    of such a place count as zero, and all that it reaches is NaN. The derivative is that of the plain contraction.

    Args:
        indices: of the contraction; n are the places of the result, m those of the values.
        weights: [..., n, ..., m, ...], zero where m lies behind n.
        values: [..., m, ...], with m first among the letters.
        own: whether a place reaches itself.

    Returns:
        What `contract` returns for finite values.
    """
    given, result = (part.replace("...", "") for part in indices.split(",")[1].split("->"))
    finite = _finite_places(values, len(given))
    shown = lax.expand_dims(finite, range(finite.ndim, values.ndim))
    product = contract(indices, weights, jnp.where(shown, values, jnp.zeros((), values.dtype)))
    place = lax.broadcasted_iota(jnp.int32, finite.shape, finite.ndim - 1)
    since = jnp.min(jnp.where(finite, finite.shape[-1], place), -1)
    since = lax.expand_dims(since, range(since.ndim, product.ndim))
    axis = product.ndim - len(result) + result.index("n")
    reached = since < lax.broadcasted_iota(jnp.int32, product.shape, axis) + int(own)
    return jnp.where(reached, jnp.full((), jnp.nan, product.dtype), product)


def _finite_places(values: Array, letters: int) -> Array:
    """Whether everything of a place is finite, [..., m]: a product, which is cheaper than to look at every number."""
    flat = values.reshape(*values.shape[: values.ndim - letters + 1], -1)
    small = jnp.full(flat.shape[-1], 2.0**-64, flat.dtype)  # no sum of finite numbers leaves the range
    dimensions = (((flat.ndim - 1,), (0,)), ((), ()))
    return jnp.isfinite(lax.dot_general(flat, small, dimensions, precision=lax.Precision.HIGHEST))


@causal_product.defjvp
def _causal_product_tangent(
    indices: str, own: bool, primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    weights, values = primals
    tangent = contract(indices, tangents[0], values) + contract(indices, weights, tangents[1])
    return causal_product(indices, weights, values, own), tangent


def masked_attention(query: Array, key: Array, value: Array, gating: Array, *, causal: bool = False) -> Array:
    """H[n, o] = sum over m, q, k, v of (Q[n, q] · K[m, k]) G[n, o, q, m, k, v] V[m, v].

    Args:
        query: [..., N, DK, JQ].
        key: [..., N, DK, JK].
        value: [..., N, DV, JV].
        gating: [..., N, JO, JQ, N, JK, JV].
        causal: whether it is zero where m lies behind n; then what is not finite behind n does not reach n.

    Returns:
        [..., N, DV, JO].
    """
    *_, jo, jq, _, jk, jv = gating.shape
    if jo == jq == jk == jv == 1 and not causal:
        scores = contract("...nd,...md->...nm", query[..., 0], key[..., 0])
        return contract("...nm,...me->...ne", scores * gating[..., 0, 0, :, 0, 0], value[..., 0])[..., None]
    scores = contract("...ndq,...mdk->...nqmk", query, key)
    if not causal:
        weights = contract("...nqmk,...noqmkv->...nomv", scores, gating)
        return contract("...nomv,...mev->...neo", weights, value)
    scores = where_seen(scores, -4, -2, own=True)
    weights = contract("...nqmk,...noqmkv->...nomv", scores, gating)
    return causal_product("...nomv,...mev->...neo", weights, value, True)


def scan_slices(
    step: Callable[[Carry, tuple[Arrays, Each]], tuple[Carry, Array]],
    carry: Carry,
    arrays: Arrays,
    each: Each,
    count: int,
) -> tuple[Carry, Array]:
    """`lax.scan` over slices of the second axis; only the carries are kept for the backward pass.

    To bring that axis to the front, as `lax.scan` wants it, would copy every array as a whole. Slices taken inside the
    loop cost nothing, nor does their gradient, which XLA writes into place.

    Args:
        step: from the carry, and a slice of each of `arrays` and an element of `each`, to the carry and an output
            [B, n, ...].
        carry: where to start.
        arrays: arrays [B, count * n, ...].
        each: arrays [count, ...].
        count: number of slices.

    Returns:
        The last carry, and the outputs [B, count * n, ...].
    """
    if count == 1:
        return step(carry, (arrays, jax.tree.map(lambda array: array[0], each)))

    def on_slice(carry: Carry, now: tuple[Array, Each]) -> tuple[Carry, Array]:
        def piece(array: Array) -> Array:
            size = array.shape[1] // count
            return lax.dynamic_slice_in_dim(array, now[0] * size, size, 1)

        return step(carry, (jax.tree.map(piece, arrays), now[1]))

    # The scan keeps the two passes apart already.
    on_slice = jax.checkpoint(on_slice, prevent_cse=False)
    carry, outputs = lax.scan(on_slice, carry, (jnp.arange(count), each))
    outputs = jnp.moveaxis(outputs, 0, 1)
    return carry, outputs.reshape(outputs.shape[0], count * outputs.shape[2], *outputs.shape[3:])


def swap_state(state: Array) -> Array:
    """A state [..., DK, DV, JT] as the ops compute with it, [..., DK, JT, DV], and back."""
    return jnp.swapaxes(state, -1, -2)
