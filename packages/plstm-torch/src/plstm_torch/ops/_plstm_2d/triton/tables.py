"""The factors of D-mode's mask (`separable_mask.py`) in torch: by differentiable operations, and gradients by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import Tensors
from plstm_torch.ops._plstm_1d.decay import line_decay


def gating_matrix(gates: Tensors, direct: Tensor) -> Tensor:
    """The mask of all pairs of nodes, in operations that can be differentiated at will.

    Args:
        gates: as of `gate_gradients`.
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


def gate_gradients(gates: Tensors, d_reading: Tensor, d_turning: Tensor, d_staying: Tensor) -> Tensors:
    """Gradients of the gates.

    With R and L the decays along rows and columns, reading = M_l R, arriving = L S_d, turning = T_ru arriving + S_r on
    the diagonal, and staying the sum of M_u arriving over the orientations, with D on the diagonal.

    Args:
        gates: source_r, source_d, transition_rl, transition_du, transition_ru, mark_l, mark_u, each [B,O,X,Y].
        d_reading: [B,O,Y,X,X].
        d_turning: [B,O,X,Y,Y].
        d_staying: [B,X,Y,Y].

    Returns:
        Those of the gates, and that of direct [B,X,Y].
    """
    _, source_d, across, down, turn, mark_l, mark_u = gates
    rows, columns = across.transpose(2, 3), down
    row_decay, column_decay = _turned(_between(rows), 0), _turned(_between(columns), 1)
    arriving = column_decay * source_d.unsqueeze(3)
    d_arriving = d_turning * turn.unsqueeze(-1) + d_staying.unsqueeze(1) * mark_u.unsqueeze(-1)
    d_row = _turned(d_reading * mark_l.transpose(2, 3).unsqueeze(-1), 0)
    d_column = _turned(d_arriving * source_d.unsqueeze(3), 1)
    return (
        d_turning.diagonal(dim1=3, dim2=4).contiguous(),
        (d_arriving * column_decay).sum(3),
        _line_gradient(_turned(row_decay, 0), d_row).transpose(2, 3).contiguous(),
        _line_gradient(_turned(column_decay, 1), d_column),
        (d_turning * arriving).sum(-1),
        (d_reading * row_decay).sum(-1).transpose(2, 3).contiguous(),
        (d_staying.unsqueeze(1) * arriving).sum(-1),
        d_staying.diagonal(dim1=2, dim2=3).contiguous(),
    )


def _between(transition: Tensor) -> Tensor:
    """[..., i, j]: product of the transitions strictly between j and i > j along the last axis, zero elsewhere."""
    places = torch.arange(transition.shape[-1], device=transition.device)
    before = torch.nn.functional.pad(transition[..., :-1], (1, 0), value=1.0)
    steps = torch.where(places.unsqueeze(1) - 1 > places, before.unsqueeze(-1), 1.0)
    return steps.cumprod(-2).tril(-1)


def _line_gradient(decay: Tensor, d_decay: Tensor) -> Tensor:
    """dT_k = sum over j of R[k, j] (Rᵀ dR)[k, j], for decays that are zero unless i > j."""
    return (torch.matmul(decay.mT, d_decay.tril(-1)) * decay).sum(-1)


def _turned(maps: Tensor, axis: int) -> Tensor:
    """[B,O,...,n,n] with the maps of the orientations that walk this axis backwards transposed: its own inverse."""
    if maps.shape[1] == 1:
        return maps
    parts = [part.mT if number >> axis & 1 else part for number, part in enumerate(maps.unbind(1))]
    return torch.stack(parts, 1)
