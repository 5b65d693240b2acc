"""Chunks walked step by step: what takes over where a product inside a chunk is not finite."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from plstm_torch.ops._plstm_1d.recurrent import plstm_1d_recurrent

# Numbers in the states of all steps, which the gradients of the walk need at once.
_STATES = 1 << 24


def walk(chunks: Sequence[Tensor], initial_states: Tensor, starts: Tensor, borders: Tensor) -> tuple[Tensor, Tensor]:
    """Output and last states by the recurrence itself.

    Args:
        chunks: query, key, value, source, transition, mark, direct, [B,N,C,...] and behind that as in `plstm_1d`.
        initial_states: [B,S,DK,DV,JT].
        starts: first chunk of each sequence [B,S].
        borders: steps at which sequences without states start [B,R]; if there are any, S is one.

    Returns:
        [B,N,C,DV,JO] and [B,S,DK,DV,JT].
    """
    count, chunk = chunks[0].shape[1:3]
    steps = tuple(array.flatten(1, 2) for array in chunks)
    if borders.shape[1]:
        states = initial_states.expand(-1, borders.shape[1], -1, -1, -1)
        output, last = plstm_1d_recurrent(steps, states, borders)
        last = last[:, -1:]
    else:
        output, last = plstm_1d_recurrent(steps, initial_states, starts * chunk)
    return output.unflatten(1, (count, chunk)), last


def walk_rows(*inputs: Tensor) -> int:
    """Rows of the batch that are walked at once."""
    query, states = inputs[0], inputs[7]
    return max(1, _STATES // max(1, query.shape[1] * query.shape[2] * states.shape[2:].numel()))


def shares_rows(*inputs: Tensor) -> bool:
    """Whether chunks hold steps of several sequences, which only happens where zero gates keep them apart."""
    return inputs[9].shape[1] > 0
