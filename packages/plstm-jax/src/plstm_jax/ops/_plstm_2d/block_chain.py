"""Border states on their way from block to block."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from plstm_jax.ops._plstm_2d.block_maps import BorderMaps
from plstm_jax.ops._plstm_2d.block_step import Vectors, block_step
from plstm_jax.ops._plstm_2d.problem import Problem, Result, copies, flip_each, sum_orientations
from plstm_jax.ops._plstm_2d.separable import SeparableMaps

Maps = BorderMaps | SeparableMaps


class Grid(NamedTuple):
    """Blocks along X, nodes of a block along X, and the same along Y."""

    nx: int
    bx: int
    ny: int
    by: int

    def split(self, array: Array, axis: int) -> Array:
        """X, Y at `axis` to BX, BY, the blocks one after the other along the batch: [B * NX * NY, ..., BX, BY, ...].

        One axis for all blocks, because XLA's sums over arrays of many axes are slow on CPU.
        """
        array = array.reshape(*array.shape[:axis], *self, *array.shape[axis + 2 :])
        array = jnp.moveaxis(array, (axis, axis + 2), (1, 2))
        return array.reshape(-1, *array.shape[3:])

    def unfold(self, array: Array) -> Array:
        """[B * NX * NY, ...] to [B, NX, NY, ...]."""
        return array.reshape(-1, self.nx, self.ny, *array.shape[1:])

    def join(self, array: Array) -> Array:
        """[B * NX * NY, BX * BY, ...] to [B, X, Y, ...]."""
        array = array.reshape(-1, self.nx, self.ny, self.bx, self.by, *array.shape[2:])
        array = jnp.moveaxis(array, 2, 3)
        return array.reshape(array.shape[0], self.nx * self.bx, self.ny * self.by, *array.shape[5:])


def carry_states(vectors: Vectors, maps: Maps, problem: Problem, grid: Grid) -> Result:
    """Walk the blocks column by column, all orientations at once, each from its own corner.

    Args:
        vectors: query [B, NX, NY, N, DK, JQ], key [B, NX, NY, N, DK, JK] and value [B, NX, NY, N, JV, DV].
        maps: [B, NX, NY, O, ...].
        problem: holds the entering states.
        grid: sizes of the blocks.

    Returns:
        Output [B, NX, NY, N, DV, JO], summed over orientations, and the leaving states as in `Result`.
    """
    flips = problem.flips
    shape = problem.query.shape[0], len(flips)

    def by_block(array: Array) -> Array:
        """[B, O, NX, NY, ...] to [NX, NY, B * O, ...] in the order of the walk."""
        array = jnp.moveaxis(array, (2, 3), (0, 1))
        return array.reshape(*array.shape[:2], -1, *array.shape[4:])

    def border(state: Array, count: int, size: int, axis: tuple[int | None, int | None]) -> Array:
        """[B, O, side, DK, JT, DV] to blocks [count, B * O, size * JT, DK, DV] in the order of the walk."""
        state = state.reshape(*shape, count, size, *state.shape[3:])
        state = jnp.moveaxis(flip_each(state, flips, *axis), (2, 5), (0, 4))
        return state.reshape(count, -1, size * state.shape[4], *state.shape[5:])

    def side(states: Array, like: Array, count: int, size: int, axis: tuple[int | None, int | None]) -> Array:
        """The inverse of `border`."""
        dk, jt, dv = like.shape[3:]
        states = states.reshape(count, *shape, size, jt, dk, dv)
        states = flip_each(jnp.moveaxis(states, (0, 4), (2, 5)), flips, *axis)
        return states.reshape(like.shape)

    # Backward needs the states above every block again; making them once more is faster than keeping them.
    @partial(jax.checkpoint, prevent_cse=False)
    def walk_column(lefts: Array, column: tuple[Vectors, Maps, Array]) -> tuple[Array, tuple[Array, Array]]:
        vectors, maps, top = column
        bottom, (rights, outputs) = lax.scan(_walk_block, top, (vectors, maps, lefts))
        return rights, (bottom, outputs)

    vectors = jax.tree.map(lambda array: by_block(copies(array, flips)), vectors)
    maps = jax.tree.map(lambda array: by_block(flip_each(jnp.moveaxis(array, 3, 1), flips, 2, 3)), maps)
    lefts = border(problem.left, grid.ny, grid.by, (None, 2))
    tops = border(problem.top, grid.nx, grid.bx, (2, None))
    rights, (bottoms, outputs) = lax.scan(walk_column, lefts, (vectors, maps, tops))
    outputs = jnp.moveaxis(outputs.reshape(*outputs.shape[:2], *shape, *outputs.shape[3:]), (0, 1), (2, 3))
    return Result(
        jnp.swapaxes(sum_orientations(flip_each(outputs, flips, 2, 3), 1), -1, -2),
        side(rights, problem.left, grid.ny, grid.by, (None, 2)),
        side(bottoms, problem.top, grid.nx, grid.bx, (2, None)),
    )


# Of a block only the entering states are kept for the backward pass, not the products with query and key.
@partial(jax.checkpoint, prevent_cse=False)
def _walk_block(top: Array, inputs: tuple[Vectors, Maps, Array]) -> tuple[Array, tuple[Array, Array]]:
    vectors, maps, left = inputs
    output, right, bottom = block_step(vectors, maps, left, top)
    return bottom, (right, output)
