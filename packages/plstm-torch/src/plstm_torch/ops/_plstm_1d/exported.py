"""The op for other runtimes, for sequences of any length without a loop over them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from plstm_torch.ops._contract import contract
from plstm_torch.ops._exporting import SEQUENCE_DOUBLINGS, doublings
from plstm_torch.ops._fast_form import Tensors
from plstm_torch.ops._plstm_1d.decay import line_decay_and_ends


def plstm_1d_exported(inputs: Tensors, state: Tensor) -> tuple[Tensor, Tensor]:
    """Output and last state.

    Args:
        inputs: query, key, value, source, transition, mark (scaled), direct (scaled), shapes as in `plstm_1d`.
        state: initial state [B,DK,DV,JT].

    Returns:
        [B,T,DV,JO] and [B,DK,DV,JT].
    """
    is_scalar = inputs[4].shape[-1] == inputs[6].shape[2:].numel() == 1
    return _one_chunk(inputs, state) if is_scalar else _all_states(inputs, state)


def _one_chunk(inputs: Tensors, state: Tensor) -> tuple[Tensor, Tensor]:
    """Scalar gates: quadratic in the length."""
    query, key, value = (tensor.squeeze(-1) for tensor in inputs[:3])
    source, transition, mark, direct = (tensor.flatten(1) for tensor in inputs[3:])
    decay, prefix, suffix, total = line_decay_and_ends(transition)
    gating = mark.unsqueeze(-1) * decay * source.unsqueeze(-2) + torch.diag_embed(direct)
    entering = state.squeeze(-1)
    output = (query @ key.mT * gating) @ value + (query * (mark * prefix).unsqueeze(-1)) @ entering
    written = (key * (source * suffix).unsqueeze(-1)).mT @ value
    last = total[:, None, None] * entering + written
    return output.unsqueeze(-1), last.unsqueeze(-1)


def _all_states(inputs: Tensors, state: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices: the maps C -> T C + W of all steps are composed by doubling; after k times each knows 2**k steps."""
    query, key, value, source, transition, mark, direct = inputs
    weights = contract("btdk,btikv->btdiv", key, source)
    written = contract("btdiv,btev->btdei", weights, value)
    moves = torch.cat([torch.zeros_like(transition[:, :1]), transition], 1)  # the initial state depends on nothing
    states = torch.cat([state.unsqueeze(1), written], 1)  # [B, 1 + T, DK, DV, JT]
    length = transition.shape[1]
    for step in range(doublings(length, SEQUENCE_DOUBLINGS) + 1):
        states = states + contract("btij,btdej->btdei", moves, _later(states, 1 << step))
        moves = contract("btij,btjk->btik", moves, _later(moves, 1 << step))
    read = contract("btdq,btoqi->btdoi", query, mark)
    output = contract("btdoi,btdei->bteo", read, states[:, :-1])
    scores = contract("btdq,btdk->btqk", query, key)
    own = contract("btqk,btoqkv->btov", scores, direct)
    return output + contract("btov,btev->bteo", own, value), states[:, -1]


def _later(steps: Tensor, by: int) -> Tensor:
    """Steps [B, T, ...] moved on by some places, with zeros before them."""
    return pad(steps, (0, 0) * (steps.dim() - 2) + (by, 0))[:, : steps.shape[1]]
