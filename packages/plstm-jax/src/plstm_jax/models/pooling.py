"""From a grid of features to what the head reads."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from plstm_config.options import unknown

GRID_POOLINGS = ("corners", "center", "mean", "sum", "to_image", "features")


def pool_grid(grid: Float[Array, "B X Y D"], pooling: str) -> Array:
    """Pool a grid of features.

    Args:
        grid: features [B, X, Y, D].
        pooling: "corners" (the four corner patches, concatenated), "center", "mean", "sum", "to_image" or
            "features".

    Returns:
        [B, 4D] for corners, [B, D] for center, mean and sum, [B, D, X, Y] for to_image, the grid for features.

    Raises:
        ValueError: if the pooling is unknown.
    """
    if pooling == "corners":
        return jnp.concatenate([grid[:, 0, 0], grid[:, -1, 0], grid[:, 0, -1], grid[:, -1, -1]], axis=-1)
    if pooling == "center":
        return grid[:, grid.shape[1] // 2, grid.shape[2] // 2]
    if pooling == "mean":
        return jnp.mean(grid, axis=(1, 2))
    if pooling == "sum":
        return jnp.sum(grid, axis=(1, 2))
    if pooling == "to_image":
        return grid.transpose(0, 3, 1, 2)
    if pooling == "features":
        return grid
    raise unknown("pooling", pooling, GRID_POOLINGS)
