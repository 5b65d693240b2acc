"""The gating matrix of P-mode with scalar gates for other runtimes: doubling over the rows, no loop over the grid."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from plstm_torch.ops._exporting import GRID_DOUBLINGS, doublings
from plstm_torch.ops._plstm_1d.decay import line_decay_and_ends
from plstm_torch.ops._plstm_2d.problem import Flips, Gates, flip_each, map_gates


def directed_gating(gates: Gates, flips: Flips, direct: Tensor) -> Tensor:
    """What every node reads of every other, [B, N, N].

    With n_x the sums of what arrives at the nodes of row x, and K the inputs, a row follows from the one before:

        n_x = P_x (T_rl n + S_r K)_{x-1} + R_x (S_d K)_x

    where R_x are the products of T_du strictly between two nodes of the row, and P_x those that start at the node
    itself. These affine maps are composed by doubling: after k steps each row knows the 2**k rows before it.

    Args:
        gates: scalar gates of mode P [B, O, X, Y, ...].
        flips: walking directions of the orientations.
        direct: [B, X, Y].

    Returns:
        The matrix, orientations summed.
    """
    walked = map_gates(gates, lambda gate: flip_each(gate.flatten(4)[..., 0], flips, 2, 3))  # [B, O, X, Y]
    x, y = direct.shape[1:3]
    between, *_ = line_decay_and_ends(walked.transition_du)  # R [B, O, X, y, v]
    starting = between * walked.transition_du.unsqueeze(-2) + torch.eye(y, dtype=direct.dtype, device=direct.device)
    rows = torch.arange(x, device=direct.device)
    own = (rows[:, None] == rows)[:, None, :, None]  # [x, 1, u, 1]
    previous = (rows[:, None] == rows + 1)[:, None, :, None]
    from_previous = starting * _shifted(walked.source_r.unsqueeze(-2), 1)
    from_own = between * walked.source_d.unsqueeze(-2)
    reached = torch.where(own, from_own.unsqueeze(4), 0.0) + torch.where(previous, from_previous.unsqueeze(4), 0.0)
    reached = reached.flatten(4)  # [B, O, X, Y, N]
    carried = starting * _shifted(walked.transition_rl.unsqueeze(-2), 1)  # [B, O, X, y, v]
    for step in range(doublings(x, GRID_DOUBLINGS)):
        reached = reached + carried @ _shifted(reached, 1 << step)
        carried = carried @ _shifted(carried, 1 << step)
    gating = (walked.mark_l.unsqueeze(-1) * reached).unflatten(4, (x, y))
    gating = flip_each(flip_each(gating, flips, 2, 3), flips, 4, 5).sum(1)
    return gating.flatten(3).flatten(1, 2) + torch.diag_embed(direct.flatten(1))


def _shifted(rows: Tensor, by: int) -> Tensor:
    """Rows [B, O, X, *, *] moved on by some places, with zeros before them."""
    return pad(rows, (0, 0, 0, 0, by, 0))[:, :, : rows.shape[2]]
