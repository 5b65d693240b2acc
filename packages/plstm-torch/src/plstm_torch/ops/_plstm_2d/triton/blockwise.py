"""The op in blocks, their border states in kernels: grids of any size, any scalar gates, states that enter and leave.

What happens inside of the blocks stays in torch, in the dtype of the gates: border states are what grows with DK * DV.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plstm_torch.ops._plstm_2d.block_maps import BorderMaps
from plstm_torch.ops._plstm_2d.chunkwise import Vectors, in_blocks
from plstm_torch.ops._plstm_2d.problem import Problem, Result, States
from plstm_torch.ops._plstm_2d.triton.blocks_form import SIDE, block_kernels


def blockwise(problem: Problem, dtype: torch.dtype) -> Result:
    """Runs the op in blocks of SIDE x SIDE nodes.

    Args:
        problem: the call, with scalar gates and in one dtype.
        dtype: that of the operands of products with states, of which query, key and value are.

    Returns:
        Output [B, X, Y, DV, 1], and the leaving states if the problem asks for them.
    """
    x, y = problem.query.shape[1:3]
    nx, ny = -(-x // SIDE), -(-y // SIDE)

    def carry(vectors: Vectors, maps: BorderMaps, states: States) -> tuple[Tensor, States]:
        reading, writing, through = _in_rows(maps)
        operands = (tensor.squeeze(-1).to(dtype) for tensor in vectors)
        entering = torch.cat(states, 2).squeeze(-1)
        carried, last = block_kernels(*operands, reading, writing, through, entering)
        right, bottom = last.unsqueeze(-1).split([ny * SIDE, nx * SIDE], 2)
        return carried.unsqueeze(-1), (right, bottom)

    return in_blocks(problem, (nx, SIDE, ny, SIDE), carry)


def _in_rows(maps: BorderMaps) -> tuple[Tensor, Tensor, Tensor]:
    """The maps with both borders in one axis: from and to nodes [*, 2*SIDE, N], and through [*, 2*SIDE, 2*SIDE]."""
    reading = torch.cat([maps.read_left, maps.read_top], -1)
    writing = torch.cat([maps.write_right, maps.write_bottom], -1)
    to_right = torch.cat([maps.right_of_left, maps.right_of_top], -1)
    to_bottom = torch.cat([maps.bottom_of_left, maps.bottom_of_top], -1)
    return reading[..., 0, 0, :].mT, writing[..., 0, 0, :].mT, torch.cat([to_right, to_bottom], -2)
