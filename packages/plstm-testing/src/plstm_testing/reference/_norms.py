"""Norms."""

import numpy as np
from jaxtyping import Float

Array = np.ndarray


def rms_norm(
    x: Float[Array, "... D"],
    scale: Float[Array, " D"] | None = None,
    bias: Float[Array, " D"] | None = None,
    eps: float = 1e-5,
) -> Float[Array, "... D"]:
    """Divide by the root mean square: ``x / sqrt(mean(x**2) + eps) * scale + bias``.

    Args:
        x: normalised over its last axis.
        scale: one if None.
        bias: zero if None.
        eps: keeps the root away from zero.

    Returns:
        Array shaped as `x`.

    Examples:
        >>> import numpy as np
        >>> from plstm_testing.reference import rms_norm
        >>> rms_norm(np.array([3.0, 3.0])).round(3).tolist()
        [1.0, 1.0]
    """
    x = np.asarray(x, np.float64)
    result = np.zeros_like(x)
    for position in np.ndindex(x.shape[:-1]):
        result[position] = _affine(x[position] / np.sqrt(np.mean(x[position] ** 2) + eps), scale, bias)
    return result


def layer_norm(
    x: Float[Array, "... D"],
    scale: Float[Array, " D"] | None = None,
    bias: Float[Array, " D"] | None = None,
    eps: float = 1e-5,
) -> Float[Array, "... D"]:
    """Subtract the mean, then divide by the biased standard deviation: `rms_norm` of the centred entries.

    Args:
        x: normalised over its last axis.
        scale: one if None.
        bias: zero if None.
        eps: added to the variance.

    Returns:
        Array shaped as `x`.

    Examples:
        >>> import numpy as np
        >>> from plstm_testing.reference import layer_norm
        >>> layer_norm(np.array([1.0, 3.0])).round(3).tolist()
        [-1.0, 1.0]
    """
    x = np.asarray(x, np.float64)
    return rms_norm(x - np.mean(x, axis=-1, keepdims=True), scale, bias, eps)


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
        Array shaped as `x`.

    Raises:
        ValueError: if the kind is unknown, or the number of heads is missing.
    """
    norms = {"rms": rms_norm, "layer": layer_norm}
    if kind not in norms:
        raise ValueError(f"kind: expected one of {sorted(norms)}, got {kind!r}")
    x = np.asarray(x, np.float64)
    if axis is None:
        if num_heads is None:
            raise ValueError("num_heads: expected the number of heads where axis is None, got None")
        heads = np.moveaxis(x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads), -2, 0)
    else:
        heads = np.moveaxis(x, axis, 0)
    result = [
        norms[kind](head, None if scale is None else scale[index], None if bias is None else bias[index], eps)
        for index, head in enumerate(heads)
    ]
    return np.stack(result, axis=-2).reshape(x.shape) if axis is None else np.stack(result, axis=axis)


def _affine(x: Array, scale: Array | None, bias: Array | None) -> Array:
    x = x if scale is None else x * scale
    return x if bias is None else x + bias
