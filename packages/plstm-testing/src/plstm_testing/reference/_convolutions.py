"""Depthwise convolutions (cross-correlations, as everywhere in deep learning)."""

import numpy as np
from jaxtyping import Float

Array = np.ndarray


def convolution_1d(
    x: Float[Array, "B T D"],
    weight: Float[Array, "D 1 k"],
    bias: Float[Array, " D"] | None = None,
    *,
    causal: bool = True,
) -> Float[Array, "B T D"]:
    """Convolution along a sequence: ``out[t] = bias + sum over j of weight[j] x[t - before + j]``.

    Args:
        x: input; zero before its start and behind its end.
        weight: one kernel of k entries per channel.
        bias: zero if None.
        causal: before = k - 1; otherwise the kernel is centred, before = (k - 1) // 2, with the extra position of an
            even size on the later side.

    Returns:
        Array shaped as `x`.
    """
    x = np.asarray(x, np.float64)
    result = np.zeros_like(x)
    size = weight.shape[-1]
    before = size - 1 if causal else (size - 1) // 2
    for step in range(x.shape[1]):
        for j in range(size):
            seen = step - before + j
            if 0 <= seen < x.shape[1]:
                result[:, step] += weight[:, 0, j] * x[:, seen]
    return result if bias is None else result + bias


def convolution_2d(
    x: Float[Array, "B X Y D"],
    weight: Float[Array, "D 1 kx ky"],
    bias: Float[Array, " D"] | None = None,
    *,
    causal: bool = False,
) -> Float[Array, "B X Y D"]:
    """Convolution over a grid.

    Args:
        x: input; zero outside the grid.
        weight: one kernel per channel.
        bias: zero if None.
        causal: the output at (x, y) sees the cells up to (x, y) only; otherwise the kernel is centred, with the extra
            cell of an even side on the high end.

    Returns:
        Array shaped as `x`.
    """
    x = np.asarray(x, np.float64)
    result = np.zeros_like(x)
    _, columns, rows, _ = x.shape
    size_x, size_y = weight.shape[-2:]
    before_x, before_y = (size_x - 1, size_y - 1) if causal else ((size_x - 1) // 2, (size_y - 1) // 2)
    for column, row, i, j in np.ndindex(columns, rows, size_x, size_y):
        seen_x, seen_y = column - before_x + i, row - before_y + j
        if 0 <= seen_x < columns and 0 <= seen_y < rows:
            result[:, column, row] += weight[:, 0, i, j] * x[:, seen_x, seen_y]
    return result if bias is None else result + bias
