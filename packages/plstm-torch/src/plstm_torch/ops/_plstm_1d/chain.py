"""The recurrence between chunks, in place: what a chunk writes becomes the state that enters the next one.

One buffer of n + 1 slots serves the n = B * N chunks of a batch. Forward, chunk i writes its contribution to slot
i + 1 and reads the state that enters it from slot i. Backward, it writes the gradient of its entering state to slot i
and reads that of its leaving state from slot i + 1. The slot between two sequences belongs to both, hence the copies.
"""

from __future__ import annotations

from torch import Tensor

from plstm_torch.ops._plstm_1d.packing import index_of


def chain_forward(slots: Tensor, totals: Tensor, initial_states: Tensor, starts: list[int]) -> Tensor:
    """Turn the contributions in slots 1..n into entering states in slots 0..n-1.

    Args:
        slots: [n+1,DK,DV].
        totals: decay over each chunk [B,N].
        initial_states: [B,S,DK,DV].
        starts: first chunk of each of the S sequences, at least one chunk each.

    Returns:
        The last states [B,S,DK,DV].
    """
    leaving, entering = (part.unflatten(0, totals.shape[:2]) for part in (slots[1:], slots[:-1]))
    decays = totals[..., None, None]
    first, last = index_of(starts, slots), index_of(_ends(starts, totals), slots)
    leaving[:, first] += decays[:, first] * initial_states
    state, begins = slots, set(starts)
    for chunk, (written, decay) in enumerate(zip(leaving.unbind(1), decays.unbind(1), strict=True)):
        state = written if chunk in begins else written.addcmul_(decay, state)
    last_states = leaving[:, last].clone()
    entering[:, first] = initial_states
    return last_states


def chain_backward(slots: Tensor, totals: Tensor, d_last_states: Tensor, starts: list[int]) -> Tensor:
    """Turn the gradients of entering states, apart from what the chunk passes on, into those of leaving states.

    Args:
        slots: [n+1,DK,DV]; before, the gradients in slots 0..n-1; after, those of leaving states in slots 1..n.
        totals: decay over each chunk [B,N].
        d_last_states: gradients of the last states [B,S,DK,DV].
        starts: as in `chain_forward`.

    Returns:
        The gradients of the initial states [B,S,DK,DV].
    """
    before, after = (part.unflatten(0, totals.shape[:2]) for part in (slots[:-1], slots[1:]))
    decays = totals[..., None, None]
    ends = _ends(starts, totals)
    first, last = index_of(starts, slots), index_of(ends, slots)
    before[:, last] += decays[:, last] * d_last_states
    state, finishes = slots, set(ends)
    steps = list(enumerate(zip(before.unbind(1), decays.unbind(1), strict=True)))
    for chunk, (read, decay) in reversed(steps):
        state = read if chunk in finishes else read.addcmul_(decay, state)
    d_initial_states = before[:, first].clone()
    after[:, last] = d_last_states
    return d_initial_states


def _ends(starts: list[int], totals: Tensor) -> list[int]:
    """The last chunk of each sequence."""
    return [start - 1 for start in (*starts[1:], totals.shape[1])]
