"""The recurrence between chunks, in place: what a chunk writes becomes the state that enters the next one.

One buffer of n + 1 slots serves the n = B * N chunks of a batch. Forward, chunk i writes its contribution to slot
i + 1 and reads the state that enters it from slot i. Backward, it writes the gradient of its entering state to slot i
and reads that of its leaving state from slot i + 1. The slot between two sequences belongs to both, hence the copies.
"""

from __future__ import annotations

from torch import Tensor


def chain_forward(slots: Tensor, totals: Tensor, initial_state: Tensor) -> Tensor:
    """Turn the contributions in slots 1..n into entering states in slots 0..n-1.

    Args:
        slots: [n+1,DK,DV].
        totals: decay over each chunk [B,N].
        initial_state: [B,DK,DV].

    Returns:
        The last state [B,DK,DV].
    """
    leaving, entering = (part.unflatten(0, totals.shape[:2]) for part in (slots[1:], slots[:-1]))
    state = initial_state
    for written, total in zip(leaving.unbind(1), totals[..., None, None].unbind(1), strict=True):
        state = written.addcmul_(total, state)
    last_state = state.clone()
    entering[:, 0] = initial_state
    return last_state


def chain_backward(slots: Tensor, totals: Tensor, d_last_state: Tensor) -> Tensor:
    """Turn the gradients of entering states, apart from what the chunk passes on, into those of leaving states.

    Args:
        slots: [n+1,DK,DV]; before, the gradients in slots 0..n-1; after, those of leaving states in slots 1..n.
        totals: decay over each chunk [B,N].
        d_last_state: gradient of the last state [B,DK,DV].

    Returns:
        The gradient of the initial state [B,DK,DV].
    """
    first, after = (part.unflatten(0, totals.shape[:2]) for part in (slots[:-1], slots[1:]))
    state = d_last_state
    for read, total in zip(reversed(first.unbind(1)), reversed(totals[..., None, None].unbind(1)), strict=True):
        state = read.addcmul_(total, state)
    d_initial_state = state.clone()
    after[:, -1] = d_last_state
    return d_initial_state
