"""The grid as a grid of blocks: masked attention inside each, border states from block to block."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from plstm_jax.ops.arrays import masked_attention
from plstm_jax.ops.plstm_2d.block_step import Vectors, block_step
from plstm_jax.ops.plstm_2d.problem import (
    Flips,
    Gates,
    Problem,
    Result,
    copies,
    exchange_axes,
    exchange_axes_of_result,
    flip_each,
    sum_orientations,
)
from plstm_jax.ops.plstm_2d.quadratic import quadratic
from plstm_jax.ops.plstm_2d.responses import BorderMaps, block_responses
from plstm_jax.ops.plstm_2d.separable import SeparableMaps, separable_responses

Maps = BorderMaps | SeparableMaps


class _Grid(NamedTuple):
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


def blockwise(problem: Problem, block: tuple[int, int]) -> Result:
    """Run the op in blocks of at most `block` nodes along X and Y; both sides of the grid at least 1."""
    if problem.gates.is_scalar and problem.gates.mode == "R":
        return exchange_axes_of_result(blockwise(exchange_axes(problem), block[::-1]))
    x, y = problem.query.shape[1:3]
    nx, ny = -(-x // block[0]), -(-y // block[1])
    if nx * ny == 1 and not problem.needs_states:
        vectors = problem.query, problem.key, problem.value
        output = quadratic(vectors, problem.gates, problem.direct, problem.flips)
        return Result(output, problem.left, problem.top)
    grid = _Grid(nx, -(-x // nx), ny, -(-y // ny))
    problem = _pad(problem, grid)
    gates = problem.gates.map(lambda gate: grid.split(gate, 2))
    direct = grid.split(problem.direct, 1)
    query, key, value = (_nodes(grid.split(array, 1)) for array in (problem.query, problem.key, problem.value))
    gating, maps = _responses(gates, direct, problem.flips)
    output = masked_attention(query, key, value, gating)
    vectors = query, key, jnp.swapaxes(value, -1, -2)
    carried = _chain(jax.tree.map(grid.unfold, vectors), jax.tree.map(grid.unfold, maps), problem, grid)
    output = grid.join(output + carried.output.reshape(output.shape))
    return Result(output[:, :x, :y], carried.right[:, :, :y], carried.bottom[:, :, :x])


def _responses(gates: Gates, direct: Array, flips: Flips) -> tuple[Array, Maps]:
    """Gating matrices [M, N, JO, JQ, N, JK, JV] of M blocks, and their maps [M, O, ...]."""
    if not (gates.is_scalar and gates.mode == "L"):
        return block_responses(gates, direct, flips)
    scalars = gates.map(lambda gate: gate.reshape(gate.shape[:4]))
    gating, maps = separable_responses(scalars, direct[..., 0, 0, 0, 0], flips)
    count, x, y = gating.shape[:3]
    return gating.reshape(count, x * y, 1, 1, x * y, 1, 1), maps


def _nodes(array: Array) -> Array:
    """[B, BX, BY, ...] to [B, BX * BY, ...]."""
    return array.reshape(array.shape[0], array.shape[1] * array.shape[2], *array.shape[3:])


def _pad(problem: Problem, grid: _Grid) -> Problem:
    """Fill the grid up to whole blocks with nodes that hold nothing and let border states pass unchanged."""
    x, y = problem.query.shape[1:3]
    more_x, more_y = grid.nx * grid.bx - x, grid.ny * grid.by - y
    if more_x == 0 and more_y == 0:
        return problem

    def padded(array: Array, *axes: tuple[int, int]) -> Array:
        widths = [(0, 0)] * array.ndim
        for axis, more in axes:
            widths[axis] = (0, more)
        return jnp.pad(array, widths)

    def nodes(array: Array) -> Array:
        return padded(array, (1, more_x), (2, more_y))

    gates = problem.gates.map(lambda gate: padded(gate, (2, more_x), (3, more_y)))
    eye = jnp.eye(gates.transition_rl.shape[-1], dtype=gates.transition_rl.dtype)
    beyond_x = (jnp.arange(x + more_x) >= x).astype(eye.dtype).reshape(1, 1, -1, 1, 1, 1)
    beyond_y = (jnp.arange(y + more_y) >= y).astype(eye.dtype).reshape(1, 1, 1, -1, 1, 1)
    return problem._replace(
        query=nodes(problem.query),
        key=nodes(problem.key),
        value=nodes(problem.value),
        gates=gates._replace(
            transition_rl=gates.transition_rl + beyond_x * eye.reshape(1, 1, 1, 1, *eye.shape),
            transition_du=gates.transition_du + beyond_y * eye.reshape(1, 1, 1, 1, *eye.shape),
        ),
        direct=nodes(problem.direct),
        left=padded(problem.left, (2, more_y)),
        top=padded(problem.top, (2, more_x)),
    )


def _chain(vectors: Vectors, maps: Maps, problem: Problem, grid: _Grid) -> Result:
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
