"""Convolutions over sequences in pieces and grids in tiles: what lies beyond comes from the ranks beside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed
from torch.nn import functional

from plstm_torch.dtypes import cat
from plstm_torch.layers.convolution import Convolution1DLayer, Convolution2DLayer
from plstm_torch.ops._arguments import attach
from plstm_torch.parallel.collectives import all_gather
from plstm_torch.parallel.pieces import Pieces
from plstm_torch.parallel.plstm_1d import last_states
from plstm_torch.parallel.wavefront import Tiles


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
        before = cat([_entering_window(x, before[:, 0], pieces, group).unsqueeze(1), before[:, 1:]], 1)
    borders = torch.tensor(pieces.own_borders, device=x.device) if len(held) > 1 else None
    output, after = conv.extend(x, before.flatten(0, 1), cu_seqlens=borders)
    if windows is None:
        return output, None
    return output, last_states(after.unflatten(0, before.shape[:2]), windows, pieces, group)


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
    return attach(cat([start[:, width - inherited :], *parts], 1), gathered[:0])


def convolve_tile(
    conv: Convolution2DLayer, x: Tensor, tiles: Tiles, sides: tuple[Sequence[int], Sequence[int]]
) -> Tensor:
    """Convolve this rank's tile.

    Args:
        conv: the layer, the same on all ranks.
        x: the tile [B,X,Y,D].
        tiles: where the ranks lie.
        sides: of the tiles in line with this one along X, and along Y.

    Returns:
        Output [B,X,Y,D].
    """
    before, after = zip(*conv.padding, strict=True)
    for axis in range(2):
        if axis < tiles.mesh.ndim and before[axis] + after[axis]:
            x = _with_neighbours(x, axis, tiles, sides[axis], (before[axis], after[axis]))
        else:
            zeros = [0, 0, before[axis], after[axis]] if axis == 1 else [0, 0, 0, 0, before[axis], after[axis]]
            x = functional.pad(x, zeros)
    return conv.convolve(x)


def _with_neighbours(x: Tensor, axis: int, tiles: Tiles, lengths: Sequence[int], width: tuple[int, int]) -> Tensor:
    """A tile between the lines before and behind it along an axis; zeros beyond the grid.

    The second axis comes with what the first one brought, and so with the corners.
    """
    (before, after), dim, place = width, axis + 1, tiles.place[axis]
    length = x.shape[dim]
    lines = x.movedim(dim, 0)
    last = lines[max(0, length - before) :]
    first = lines[:after]
    missing_before, missing_after = x.new_zeros(before - len(last), *last.shape[1:]), after - len(first)
    sent = cat([missing_before, last, first, x.new_zeros(missing_after, *first.shape[1:])])
    gathered = all_gather(sent, tiles.mesh.get_group(axis))
    head, tail = x.new_zeros(0, *lines.shape[1:]), x.new_zeros(0, *lines.shape[1:])
    for rank in reversed(range(place)):
        taken = min(before - len(head), lengths[rank])
        head = cat([gathered[rank, before - taken : before], head])
    for rank in range(place + 1, tiles.shape[axis]):
        taken = min(after - len(tail), lengths[rank])
        tail = cat([tail, gathered[rank, before : before + taken]])
    beyond = (x.new_zeros(before - len(head), *lines.shape[1:]), x.new_zeros(after - len(tail), *lines.shape[1:]))
    return attach(cat([beyond[0], head, lines, tail, beyond[1]]).movedim(0, dim), gathered[:0])
