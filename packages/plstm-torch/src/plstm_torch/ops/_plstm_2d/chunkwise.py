"""The grid as a grid of blocks: masked attention inside a block, border states from block to block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from plstm_torch.ops._plstm_2d.attention import masked_attention, with_direct
from plstm_torch.ops._plstm_2d.block_chain import BlockGrid, carry_states
from plstm_torch.ops._plstm_2d.block_maps import BorderMaps, block_responses
from plstm_torch.ops._plstm_2d.problem import Problem, Result, States, exchange_axes, exchange_axes_of_result, map_gates

Vectors = tuple[Tensor, Tensor, Tensor]
# (query, key, value of the blocks as in `carry_states`; maps; entering states) -> as `carry_states`
Carry = Callable[[Vectors, BorderMaps, States], tuple[Tensor, States]]


def chunkwise(problem: Problem, block: tuple[int, int]) -> Result:
    """Runs the op in blocks of at most `block` nodes along X and Y; a block as large as the grid has no carry.

    Args:
        problem: the call.
        block: sides of a block.

    Returns:
        Output [B, X, Y, DV, JO], and the leaving states if the problem asks for them.
    """
    if problem.gates.is_scalar and problem.gates.mode == "R":
        return exchange_axes_of_result(chunkwise(exchange_axes(problem), block[::-1]))
    x, y = problem.query.shape[1:3]
    nx, ny = -(-x // block[0]), -(-y // block[1])
    grid = (nx, -(-x // nx), ny, -(-y // ny))
    separable = problem.gates.is_scalar and problem.gates.mode == "L"
    return in_blocks(
        problem,
        grid,
        lambda vectors, maps, states: carry_states(vectors, maps, states, grid, problem.flips, separable),
    )


def in_blocks(problem: Problem, grid: BlockGrid, carry: Carry) -> Result:
    """Runs the op in blocks.

    Args:
        problem: the call.
        grid: how X and Y, filled up to whole blocks, are cut.
        carry: hands border states from block to block.

    Returns:
        Output [B, X, Y, DV, JO], and the leaving states if the problem asks for them.
    """
    x, y = problem.query.shape[1:3]
    problem = _pad(problem, grid)
    nodes, maps = block_responses(map_gates(problem.gates, lambda gate: _split(gate, grid, 2)), problem.flips)
    q, k, v = (_split(tensor, grid, 1).flatten(3, 4) for tensor in (problem.query, problem.key, problem.value))
    output = masked_attention(q, k, v, with_direct(nodes, _split(problem.direct, grid, 1).flatten(3, 4)))
    carried, (right, bottom) = carry((q, k, v), maps, problem.initial_state or problem.zero_state())
    output = output + carried
    output = output.unflatten(3, (grid[1], grid[3])).transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, :x, :y]
    return output, ((right[:, :, :y], bottom[:, :, :x]) if problem.return_last_state else None)


def _split(tensor: Tensor, grid: BlockGrid, axis: int) -> Tensor:
    """[..., X, Y, ...] to [..., NX, NY, BX, BY, ...]."""
    nx, bx, ny, by = grid
    return tensor.unflatten(axis + 1, (ny, by)).unflatten(axis, (nx, bx)).transpose(axis + 1, axis + 2)


def _pad(problem: Problem, grid: BlockGrid) -> Problem:
    """Fills the grid up to whole blocks with nodes that hold nothing and let border states pass unchanged."""
    x, y = problem.query.shape[1:3]
    more_x, more_y = grid[0] * grid[1] - x, grid[2] * grid[3] - y
    if more_x == 0 and more_y == 0:
        return problem

    def padded(tensor: Tensor, axis: int) -> Tensor:
        trailing = tensor.dim() - axis - 2
        return pad(tensor, (0, 0) * trailing + (0, more_y, 0, more_x))

    beyond_x = (torch.arange(x + more_x, device=problem.query.device) >= x)[:, None]
    beyond_y = (torch.arange(y + more_y, device=problem.query.device) >= y)[None, :]
    eye = torch.eye(problem.gates.transition_rl.shape[-1], dtype=problem.query.dtype, device=problem.query.device)
    # Beyond X only r arrives, beyond Y only d: so in P-mode, too, where the same transition turns what does not come.
    passes_r = (beyond_x & ~beyond_y)[..., None, None] * eye
    passes_d = (beyond_y & ~beyond_x)[..., None, None] * eye
    gates = map_gates(problem.gates, lambda gate: padded(gate, 2))
    gates = replace(gates, transition_rl=gates.transition_rl + passes_r, transition_du=gates.transition_du + passes_d)
    state = problem.initial_state
    if state is not None:
        state = (pad(state[0], (0, 0) * 3 + (0, more_y)), pad(state[1], (0, 0) * 3 + (0, more_x)))
    return replace(
        problem,
        query=padded(problem.query, 1),
        key=padded(problem.key, 1),
        value=padded(problem.value, 1),
        gates=gates,
        direct=padded(problem.direct, 1),
        initial_state=state,
    )
