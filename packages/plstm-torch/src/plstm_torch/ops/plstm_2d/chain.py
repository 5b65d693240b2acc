"""Border states on their way from block to block."""

from __future__ import annotations

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import FastForm, Tensors
from plstm_torch.ops.plstm_2d.problem import Flips
from plstm_torch.ops.plstm_2d.responses import Responses

BlockGrid = tuple[int, int, int, int]  # blocks along X, nodes of a block along X, the same along Y
States = tuple[Tensor, Tensor]


def carry_states(
    query: Tensor, key: Tensor, value: Tensor, responses: Responses, states: States, grid: BlockGrid, flips: Flips
) -> tuple[Tensor, States]:
    """Hands border states from block to block, all orientations at once, each from its own corner.

    Args:
        query: [B, NX, NY, N, DK, JQ], N the nodes of a block.
        key: [B, NX, NY, N, DK, JK].
        value: [B, NX, NY, N, DV, JV].
        responses: of the blocks [NX, NY].
        states: what enters, left [B, O, Y, DK, DV, JT] and top [B, O, X, DK, DV, JT].
        grid: how X and Y are cut.
        flips: walking directions of the orientations.

    Returns:
        What the entering states contribute to the output, [B, NX, NY, N, DV, JO], and what leaves: right, bottom.
    """
    nx, bx, ny, by = grid
    jt, dk = states[0].shape[-1], key.shape[-2]
    inputs = [_table(tensor) for tensor in (query, key, value.mT)]
    read = responses.read.flatten(4, 5)
    write = responses.write.flatten(5, 6).movedim(4, -1).transpose(5, 6)
    maps = [[_table(part) for part in tensor.unbind(1)] for tensor in (read, write, responses.carry)]
    lefts, tops = _to_blocks(states[0], by), _to_blocks(states[1], bx)
    outputs: list[list[list[Tensor]]] = [[[] for _ in range(ny)] for _ in range(nx)]
    for step in range(nx * ny):
        step_x, step_y = divmod(step, ny)
        places = [
            (o, nx - 1 - step_x if flip_x else step_x, ny - 1 - step_y if flip_y else step_y)
            for o, (flip_x, flip_y) in enumerate(flips)
        ]
        entering = [torch.cat([lefts[o][j], tops[o][i]], 1) for o, i, j in places]
        arguments = [[table[i][j] for _, i, j in places] for table in inputs]
        arguments += [[tables[o][i][j] for o, i, j in places] for tables in maps]
        output, leaving = BLOCK_STEP(*(torch.stack(blocks, 1).flatten(0, 1) for blocks in (*arguments, entering)))
        output, leaving = (result.unflatten(0, (-1, len(flips))).unbind(1) for result in (output, leaving))
        for o, i, j in places:
            outputs[i][j].append(output[o])
            lefts[o][j], tops[o][i] = leaving[o].split([by * jt, bx * jt], 1)
    contribution = torch.stack([torch.stack([sum(blocks[1:], blocks[0]) for blocks in row], 1) for row in outputs], 1)
    return contribution.mT, (_from_blocks(lefts, by, dk), _from_blocks(tops, bx, dk))


def _table(tensor: Tensor) -> list[list[Tensor]]:
    """[B, NX, NY, ...] as a table of [B, ...]."""
    return [list(row.unbind(1)) for row in tensor.unbind(1)]


def _to_blocks(states: Tensor, nodes: int) -> list[list[Tensor]]:
    """[B, O, blocks * nodes, DK, DV, JT] as a table, by orientation and block, of [B, nodes * JT, DK * DV]."""
    return _table(states.unflatten(2, (-1, nodes)).movedim(-1, 4).flatten(5).flatten(3, 4))


def _from_blocks(table: list[list[Tensor]], nodes: int, dk: int) -> Tensor:
    states = torch.stack([torch.stack(row, 1) for row in table], 1)
    return states.unflatten(4, (dk, -1)).unflatten(3, (nodes, -1)).movedim(4, -1).flatten(2, 3)


def _formula(
    query: Tensor, key: Tensor, value: Tensor, read: Tensor, write: Tensor, carry: Tensor, state: Tensor
) -> Tensors:
    """One block.

    Args:
        query: [M, N, DK, JQ].
        key: [M, N, DK, JK].
        value: [M, N, JV, DV].
        read: [M, N, JO, JQ, border].
        write: [M, N, JV, JK, border].
        carry: [M, border, border].
        state: [M, border, DK * DV].

    Returns:
        Output [M, N, JO, DV] and the leaving state.
    """
    reader, writer = _spread(query, read), _spread(key, write)
    output = reader @ state.view(len(state), reader.shape[2], -1)
    written = writer.mT @ value.flatten(1, 2)
    return output.unflatten(1, read.shape[1:3]), torch.baddbmm(written.view_as(state), carry, state)


def _spread(vectors: Tensor, weights: Tensor) -> Tensor:
    """[M, N, D, J] and [M, N, I, J, border] to [M, N * I, border * D]."""
    if vectors.shape[-1] == 1:
        spread = weights.squeeze(3).unsqueeze(-1) * vectors.squeeze(-1)[:, :, None, None]
    else:
        spread = torch.einsum("mndj,mnijb->mnibd", vectors, weights)
    return spread.flatten(1, 2).flatten(2)


def _forward(*inputs: Tensor) -> tuple[Tensors, Tensors]:
    return _formula(*inputs), ()


def _gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    """The products of vectors and maps, large as the states of all nodes together, are computed again."""
    query, key, value, read, write, carry, state = inputs
    output, leaving = (grad.contiguous() for grad in cotangents)
    reader, writer = _spread(query, read), _spread(key, write)
    rows = output.flatten(1, 2)
    nodes_state, nodes_leaving = (tensor.reshape(len(state), reader.shape[2], -1) for tensor in (state, leaving))
    d_state = torch.baddbmm((reader.mT @ rows).view_as(state), carry.mT, leaving)
    d_query, d_read = _gather(query, read, rows @ nodes_state.mT)
    d_key, d_write = _gather(key, write, value.flatten(1, 2) @ nodes_leaving.mT)
    d_value = (writer @ nodes_leaving).view_as(value)
    return d_query, d_key, d_value, d_read, d_write, leaving @ state.mT, d_state


def _gather(vectors: Tensor, weights: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `_spread`."""
    grad = grad.view(*weights.shape[:3], weights.shape[4], -1)
    if vectors.shape[-1] == 1:
        of_vectors = weights.squeeze(3).flatten(2).unsqueeze(2) @ grad.flatten(2, 3)
        return of_vectors.mT, (grad.flatten(2, 3) @ vectors).view_as(weights)
    return torch.einsum("mnibd,mnijb->mndj", grad, weights), torch.einsum("mnibd,mndj->mnijb", grad, vectors)


def _allocate(
    query: Tensor, key: Tensor, value: Tensor, read: Tensor, write: Tensor, carry: Tensor, state: Tensor
) -> Tensors:
    return query.new_empty(*read.shape[:3], value.shape[3]), torch.empty_like(state)


BLOCK_STEP = FastForm("grid_block_step", _formula, _forward, _gradients, _allocate, num_outputs=2)
