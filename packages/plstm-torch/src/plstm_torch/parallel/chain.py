"""What a piece does to the state that enters it, and the states that enter the pieces; README.md has the equations."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

from plstm_torch.ops._arguments import attach
from plstm_torch.ops._contract import contract
from plstm_torch.parallel.collectives import all_gather
from plstm_torch.parallel.pieces import Pieces


def entering_state(written: tuple[Tensor, Tensor, Tensor, Tensor], initial_states: Tensor | None, pieces: Pieces,
                   group: distributed.ProcessGroup) -> Tensor:  # fmt: skip
    """The state that the pieces before hand to this one.

    Every rank takes part in one collective, forward and backward, also one that nothing enters.

    Args:
        written: this piece's key [B,T,DK,JK], value [B,T,DV,JV], source [B,T,JT,JK,JV] and transition [B,T,JT,JT].
        initial_states: of all sequences [B,S,DK,DV,JT], or None.
        pieces: where the pieces lie; something has to be handed on.
        group: of the ranks.

    Returns:
        [B,DK,DV,JT]; zero where a sequence begins with the piece.
    """
    key, value, source, transition = (tensor[:, pieces.tail :] for tensor in written)
    total, last = piece_map(key, value, source, transition)
    if initial_states is not None and pieces.begins(pieces.rank):
        own = initial_states[:, pieces.sequence_at(pieces.stop)]
        last = last + contract("bij,bkvj->bkvi", total, own)
    gathered = all_gather(torch.cat([total.flatten(1), last.flatten(1)], 1), group)
    totals, lasts = gathered.split([total.shape[1:].numel(), last.shape[1:].numel()], 2)
    state: Tensor | None = None
    for piece in range(pieces.rank):
        if not pieces.is_open(pieces.ends[piece + 1]):
            state = None
        elif pieces.lengths[piece]:
            after = lasts[piece].view_as(last)
            if not pieces.begins(piece) and state is not None:
                after = after + contract("bij,bkvj->bkvi", totals[piece].view_as(total), state)
            state = after
    if state is None or not pieces.continues:
        state = torch.zeros_like(last)
    return attach(state, gathered[:0])


def piece_map(key: Tensor, value: Tensor, source: Tensor, transition: Tensor) -> tuple[Tensor, Tensor]:
    """The map of a piece, state -> total state + last.

    Args:
        key: [B,T,DK,JK], any T.
        value: [B,T,DV,JV].
        source: [B,T,JT,JK,JV].
        transition: [B,T,JT,JT].

    Returns:
        total [B,JT,JT], the product of the transitions; last [B,DK,DV,JT], the state after the piece from zero.
    """
    after, total = _products_after(transition)
    if transition.shape[-1] == 1:
        weights = after.unsqueeze(-1) * source
    else:
        weights = contract("btij,btjkw->btikw", after, source)
    values = contract("btikw,btvw->btikv", weights, value)
    return total, contract("btdk,btikv->bdvi", key, values)


def _products_after(transition: Tensor) -> tuple[Tensor, Tensor]:
    """The product of the transitions after each step [B,T,JT,JT], and of all [B,JT,JT], later ones on the left.

    Two halves of a line at a time: the products after the steps of the left one take in the whole of the right one. So
    nothing is divided, and a transition of zero is like any other.
    """
    batch, length, size, _ = transition.shape
    eye = torch.eye(size, dtype=transition.dtype, device=transition.device)
    if length == 0:
        return transition, attach(eye.expand(batch, size, size), transition)
    missing = (1 << (length - 1).bit_length()) - length
    total = torch.cat([transition, eye.expand(batch, missing, size, size)], 1)
    after = eye.expand(batch, total.shape[1], 1, size, size)
    while total.shape[1] > 1:
        left, right = total[:, 0::2], total[:, 1::2]
        after = torch.cat([_times(right, after[:, 0::2]), after[:, 1::2]], 2)
        total = _times(right, left.unsqueeze(2)).squeeze(2)
    return after[:, 0, :length], total[:, 0]


def _times(left: Tensor, right: Tensor) -> Tensor:
    """Matrices [B,N,J,J] times many each [B,N,C,J,J]."""
    if left.shape[-1] == 1:
        return left.unsqueeze(2) * right
    return contract("bnij,bncjk->bncik", left, right)
