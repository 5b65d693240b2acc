"""Causal convolution over a sequence in pieces: the inputs before a piece come from the ranks before."""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.nn import functional

from plstm_torch.layers.convolution import Convolution1DLayer
from plstm_torch.ops._arguments import attach
from plstm_torch.parallel.collectives import all_gather
from plstm_torch.parallel.pieces import Pieces
from plstm_torch.parallel.plstm_1d import last_states


def convolve_piece(
    conv: Convolution1DLayer, x: Tensor, windows: Tensor | None, pieces: Pieces, group: distributed.ProcessGroup
) -> tuple[Tensor, Tensor | None]:
    """Convolve this rank's piece.

    Args:
        conv: the layer, the same on all ranks.
        x: the piece [B,T,D].
        windows: inputs before all sequences [B,S,k-1,D]; None where they are zero and not wanted behind.
        pieces: where the pieces lie.
        group: of the ranks.

    Returns:
        Output [B,T,D], and the last k - 1 inputs of all sequences [B,S,k-1,D], None if no windows are given.
    """
    width, held = conv.kernel_size - 1, pieces.held
    before = x.new_zeros(x.shape[0], max(1, len(held)), width, x.shape[2])
    if windows is not None and held:
        before = windows[:, held.start : held.stop]
    if pieces.any_open and width:
        before = torch.cat([_entering_window(x, before[:, 0], pieces, group).unsqueeze(1), before[:, 1:]], 1)
    borders = torch.tensor(pieces.own_borders, device=x.device) if len(held) > 1 else None
    output, after = conv.extend(x, before.flatten(0, 1), cu_seqlens=borders)
    if windows is None:
        return output, None
    return output, last_states(after.unflatten(0, (x.shape[0], -1)), windows, pieces, group)


def _entering_window(x: Tensor, start: Tensor, pieces: Pieces, group: distributed.ProcessGroup) -> Tensor:
    """The k - 1 inputs before this piece [B,k-1,D]; `start` where a sequence begins with it.

    A piece may be shorter than the window: its own inputs then stand behind those of the ranks before.
    """
    width = start.shape[1]
    last = x[:, max(0, x.shape[1] - width) :]
    gathered = all_gather(functional.pad(last, (0, 0, width - last.shape[1], 0)), group)
    parts: list[Tensor] = []
    missing = 0
    if pieces.continues:
        missing = min(width, pieces.start - pieces.borders[pieces.sequence_at(pieces.start)])
    inherited = width - missing
    for rank in reversed(range(pieces.rank)):
        taken = min(missing, pieces.lengths[rank])
        parts.insert(0, gathered[rank, :, width - taken :])
        missing -= taken
    return attach(torch.cat([start[:, width - inherited :], *parts], 1), gathered[:0])
