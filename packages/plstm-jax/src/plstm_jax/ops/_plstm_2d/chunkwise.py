"""The grid as a grid of blocks: masked attention inside each, border states from block to block."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from plstm_jax.ops._plstm_2d.block_chain import Grid, Maps, carry_states
from plstm_jax.ops._plstm_2d.block_maps import block_responses
from plstm_jax.ops._plstm_2d.parallel import parallel
from plstm_jax.ops._plstm_2d.problem import (
    Flips,
    Gates,
    Problem,
    Result,
    exchange_axes,
    exchange_axes_of_result,
)
from plstm_jax.ops._plstm_2d.separable import separable_responses
from plstm_jax.ops.arrays import lifted, masked_attention


def chunkwise(problem: Problem, block: tuple[int, int]) -> Result:
    """Run the op in blocks of at most `block` nodes along X and Y; both sides of the grid at least 1."""
    if problem.gates.is_scalar and problem.gates.mode == "R":
        return exchange_axes_of_result(chunkwise(exchange_axes(problem), block[::-1]))
    x, y = problem.query.shape[1:3]
    nx, ny = -(-x // block[0]), -(-y // block[1])
    if nx * ny == 1 and not problem.needs_states:
        vectors = problem.query, problem.key, problem.value
        output = parallel(vectors, problem.gates, problem.direct, problem.flips)
        return Result(output, problem.left, problem.top)
    grid = Grid(nx, -(-x // nx), ny, -(-y // ny))
    problem = _pad(problem, grid)
    gates = problem.gates.map(lambda gate: grid.split(gate, 2))
    direct = grid.split(problem.direct, 1)
    query, key, value = (_nodes(grid.split(array, 1)) for array in (problem.query, problem.key, problem.value))
    gating, maps = _responses(gates, direct, problem.flips)
    output = masked_attention(query, key, value, gating)
    vectors = query, key, jnp.swapaxes(value, -1, -2)
    carried = carry_states(jax.tree.map(grid.unfold, vectors), jax.tree.map(grid.unfold, maps), problem, grid)
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


def _pad(problem: Problem, grid: Grid) -> Problem:
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
    beyond_x, beyond_y = (jnp.arange(x + more_x) >= x)[:, None], (jnp.arange(y + more_y) >= y)[None]
    # Beyond X only r arrives, beyond Y only d: so in P-mode, too, where the same transition turns what does not come.
    passes_r, passes_d = (
        lifted(passes[..., None, None].astype(eye.dtype) * eye[None, None], gates.transition_rl.ndim)
        for passes in (beyond_x & ~beyond_y, beyond_y & ~beyond_x)
    )
    return problem._replace(
        query=nodes(problem.query),
        key=nodes(problem.key),
        value=nodes(problem.value),
        gates=gates._replace(
            transition_rl=gates.transition_rl + passes_r, transition_du=gates.transition_du + passes_d
        ),
        direct=nodes(problem.direct),
        left=padded(problem.left, (2, more_y)),
        top=padded(problem.top, (2, more_x)),
    )
