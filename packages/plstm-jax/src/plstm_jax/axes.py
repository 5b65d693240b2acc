"""Axes merged into one; JAX cannot tell their size itself where another axis is empty."""

from __future__ import annotations

import math

from jax import Array


def merge_axes(array: Array, first: int, last: int) -> Array:
    """Merge neighbouring axes.

    Args:
        array: any array.
        first: the first of the axes, not negative.
        last: the last of them; negative counts from the end.

    Returns:
        The array with one axis in their place.
    """
    last %= array.ndim
    merged = math.prod(array.shape[first : last + 1])
    return array.reshape(*array.shape[:first], merged, *array.shape[last + 1 :])
