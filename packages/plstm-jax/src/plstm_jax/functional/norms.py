"""Norms; mean and root are computed in float32 or higher, the result has the dtype of the input."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from plstm_config.options import check_choice
from plstm_jax.ops.arrays import common_dtype, lifted


def rms_norm(
    x: Float[Array, "... D"],
    scale: Float[Array, "*#D"] | None = None,
    bias: Float[Array, "*#D"] | None = None,
    eps: float = 1e-5,
) -> Float[Array, "... D"]:
    """Divide by the root mean square: ``x / sqrt(mean(x**2) + eps) * scale + bias``.

    Args:
        x: normalised over its last axis.
        scale: broadcasts with `x`; one if None.
        bias: broadcasts with `x`; zero if None.
        eps: keeps the root away from zero.

    Returns:
        Array of the shape and dtype of `x`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from plstm_jax.functional import rms_norm
        >>> rms_norm(jnp.array([3.0, 3.0])).round(3).tolist()
        [1.0, 1.0]
    """
    wide = x.astype(common_dtype(x.dtype, jnp.float32))
    return _affine(_over_root(wide, eps), scale, bias).astype(x.dtype)


def layer_norm(
    x: Float[Array, "... D"],
    scale: Float[Array, "*#D"] | None = None,
    bias: Float[Array, "*#D"] | None = None,
    eps: float = 1e-5,
) -> Float[Array, "... D"]:
    """Subtract the mean and divide by the biased standard deviation, then apply scale and bias.

    Args:
        x: normalised over its last axis.
        scale: broadcasts with `x`; one if None.
        bias: broadcasts with `x`; zero if None.
        eps: added to the variance.

    Returns:
        Array of the shape and dtype of `x`.

    Examples:
        >>> import jax.numpy as jnp
        >>> from plstm_jax.functional import layer_norm
        >>> layer_norm(jnp.array([1.0, 3.0])).round(3).tolist()
        [-1.0, 1.0]
    """
    wide = x.astype(common_dtype(x.dtype, jnp.float32))
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    return _affine(_over_root(centred, eps), scale, bias).astype(x.dtype)


_NORMS: Mapping[str, Callable[..., Array]] = {"rms": rms_norm, "layer": layer_norm}


def multi_head_norm(
    x: Float[Array, "..."],
    scale: Float[Array, "H d"] | None = None,
    bias: Float[Array, "H d"] | None = None,
    *,
    kind: str = "rms",
    axis: int | None = 1,
    num_heads: int | None = None,
    eps: float = 1e-5,
) -> Float[Array, "..."]:
    """Normalise every head on its own, with parameters of its own.

    Args:
        x: heads on `axis`, entries of a head on the last axis; [..., H*d] if `axis` is None.
        scale: one if None.
        bias: zero if None.
        kind: "rms" or "layer".
        axis: where the heads are, None to split the last dimension.
        num_heads: H, needed where `axis` is None.
        eps: as in the norm of one head.

    Returns:
        Array of the shape and dtype of `x`.

    Raises:
        ValueError: if the kind is unknown, or the number of heads is missing or does not divide the last dimension.

    Examples:
        >>> import jax.numpy as jnp
        >>> from plstm_jax.functional import multi_head_norm
        >>> multi_head_norm(jnp.array([1.0, 1.0, 5.0, 5.0]), num_heads=2, axis=None).round(3).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    check_choice("kind", kind, _NORMS)
    if axis is not None:
        scale, bias = (_along(parameters, x.ndim, axis) for parameters in (scale, bias))
        return _NORMS[kind](x, scale, bias, eps)
    if num_heads is None or x.shape[-1] % num_heads:
        raise ValueError(f"num_heads: expected a divisor of {x.shape[-1]} where axis is None, got {num_heads}")
    heads = x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads)
    return _NORMS[kind](heads, scale, bias, eps).reshape(x.shape)


def _over_root(x: Array, eps: float) -> Array:
    return x * lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps)


def _affine(x: Array, scale: Array | None, bias: Array | None) -> Array:
    dtype = common_dtype(x.dtype, *(array.dtype for array in (scale, bias) if array is not None))
    scale, bias = (None if array is None else lifted(array, x.ndim).astype(dtype) for array in (scale, bias))
    x = x.astype(dtype)
    x = x if scale is None else x * scale
    return x if bias is None else x + bias


def _along(parameters: Array | None, rank: int, axis: int) -> Array | None:
    """Parameters [H, d] with H at `axis` and d at the end."""
    if parameters is None:
        return None
    heads, size = parameters.shape
    shape = [1] * rank
    shape[axis], shape[-1] = heads, size
    return parameters.reshape(shape)
