"""D-mode's mask (`separable_mask.py`) in torch, by differentiable operations."""

from __future__ import annotations

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import Tensors
from plstm_torch.ops._plstm_1d.decay import line_decay


def gating_matrix(gates: Tensors, direct: Tensor) -> Tensor:
    """The mask of all pairs of nodes, in operations that can be differentiated at will.

    Args:
        gates: source_r, source_d, transition_rl, transition_du, transition_ru, mark_l, mark_u, each [B,O,X,Y].
        direct: [B,X,Y].

    Returns:
        [B,X,Y,X,Y], targets first.
    """
    source_r, source_d, across, down, turn, mark_l, mark_u = gates
    reading = mark_l.transpose(2, 3).unsqueeze(-1) * _turned(line_decay(across.transpose(2, 3)), 0)
    arriving = _turned(line_decay(down), 1) * source_d.unsqueeze(3)
    turning = turn.unsqueeze(-1) * arriving + torch.diag_embed(source_r)
    staying = (mark_u.unsqueeze(-1) * arriving).sum(1) + torch.diag_embed(direct)
    column = torch.eye(direct.shape[1], dtype=direct.dtype, device=direct.device)[:, None, :, None]
    return torch.einsum("boyxu,bouyv->bxyuv", reading, turning) + column * staying.transpose(1, 2).unsqueeze(1)


def _turned(maps: Tensor, axis: int) -> Tensor:
    """[B,O,...,n,n] with the maps of the orientations that walk this axis backwards transposed: its own inverse."""
    if maps.shape[1] == 1:
        return maps
    parts = [part.mT if number >> axis & 1 else part for number, part in enumerate(maps.unbind(1))]
    return torch.stack(parts, 1)
