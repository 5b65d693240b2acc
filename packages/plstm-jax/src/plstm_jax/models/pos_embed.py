"""Positional embedding of a patch grid that follows the grid's size."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from plstm_config import PosEmbed2DConfig
from plstm_config.checks import check_grid
from plstm_jax.dtypes import dtype_of, wide
from plstm_jax.formulas import Scope, register_map

_CUBIC = -0.75  # the slope of the kernel at its first zero


def resize_pos_embed(embed: Float[Array, "1 X Y D"], grid: tuple[int, int]) -> Float[Array, "1 X2 Y2 D"]:
    """Resample a positional embedding to another grid, bicubic and without antialiasing.

    Centres of cells are aligned; beyond the border the outermost cells go on.

    Args:
        embed: embedding [1, X, Y, D], any floating dtype; resampled in float32 or higher.
        grid: new sizes (X2, Y2).

    Returns:
        Embedding [1, X2, Y2, D] in the dtype of `embed`; `embed` itself if the grid is the same.
    """
    if tuple(embed.shape[1:3]) == tuple(grid):
        return embed
    work = wide(embed.dtype)
    along_x, along_y = (
        jnp.asarray(_bicubic_matrix(old, new), work) for old, new in zip(embed.shape[1:3], grid, strict=True)
    )
    resized = jnp.einsum("ax,by,nxyd->nabd", along_x, along_y, embed.astype(work), precision="highest")
    return resized.astype(embed.dtype)


def _bicubic_matrix(old: int, new: int) -> np.ndarray:
    """Weights [new, old] of the old cells in each of the new ones."""
    places = (np.arange(new) + 0.5) * (old / new) - 0.5
    first = np.floor(places).astype(int)
    matrix = np.zeros((new, old))
    for shift in (-1, 0, 1, 2):
        weights = _cubic_kernel(np.abs(places - (first + shift)))
        np.add.at(matrix, (np.arange(new), np.clip(first + shift, 0, old - 1)), weights)
    return matrix


def _cubic_kernel(distance: np.ndarray) -> np.ndarray:
    near = ((_CUBIC + 2) * distance - (_CUBIC + 3)) * distance**2 + 1
    far = _CUBIC * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, far)


@register_map(PosEmbed2DConfig)
def pos_embed_2d(config: PosEmbed2DConfig, scope: Scope, x: Array) -> Array:
    """Add one embedding per grid position, resampled if the grid is another one.

    Args:
        config: grid, width and dtype.
        scope: holds `embed` [1, X, Y, dim].
        x: patch grid [B, X, Y, dim].

    Returns:
        The grid plus the embedding, in the config's dtype.

    Raises:
        ValueError: if the grid is another one although `allow_interpolation` is False.
    """
    grid, work = (x.shape[1], x.shape[2]), dtype_of(config.dtype)
    check_grid(grid, config)
    embed = scope.need("embed")
    embed = embed if config.learnable else lax.stop_gradient(embed)
    return x.astype(work) + resize_pos_embed(embed, grid).astype(work)
