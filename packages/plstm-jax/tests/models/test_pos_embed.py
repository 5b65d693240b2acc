"""Positional embeddings on other grids."""

import jax.numpy as jnp
import numpy as np
import pytest

import plstm_jax
from plstm_config import PosEmbed2DConfig
from plstm_jax.models import resize_pos_embed


def cubic(distance, slope=-0.75):
    """Keys' kernel, written down by its pieces."""
    distance = abs(distance)
    if distance <= 1:
        return (slope + 2) * distance**3 - (slope + 3) * distance**2 + 1
    if distance < 2:
        return slope * distance**3 - 5 * slope * distance**2 + 8 * slope * distance - 4 * slope
    return 0.0


def along(values, size):
    """Resample the first axis point by point."""
    old = len(values)
    result = np.zeros((size, *values.shape[1:]))
    for place in range(size):
        centre = (place + 0.5) * old / size - 0.5
        for cell in range(-3, old + 3):
            result[place] += cubic(centre - cell) * values[min(max(cell, 0), old - 1)]
    return result


@pytest.mark.parametrize("grid", [(7, 5), (2, 9), (3, 4), (1, 1)])
def test_is_bicubic_with_continued_borders(grid):
    embed = np.random.default_rng(0).standard_normal((1, 3, 4, 2))
    expected = along(along(embed[0], grid[0]).swapaxes(0, 1), grid[1]).swapaxes(0, 1)
    np.testing.assert_allclose(resize_pos_embed(jnp.asarray(embed), grid)[0], expected, atol=1e-12)


def test_the_same_grid_is_left_alone():
    embed = jnp.ones((1, 3, 4, 2), jnp.bfloat16)
    assert resize_pos_embed(embed, (3, 4)) is embed


def test_other_grids_are_refused_where_they_may_not_be():
    config = PosEmbed2DConfig(seqlens=(2, 2), dim=3, allow_interpolation=False)
    with pytest.raises(ValueError, match=r"x: expected the grid \(2, 2\)"):
        plstm_jax.apply(config, {"embed": jnp.zeros((1, 2, 2, 3))}, jnp.zeros((1, 2, 3, 3)))
