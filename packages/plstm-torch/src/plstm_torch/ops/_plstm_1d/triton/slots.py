"""Chunks of packed sequences in slots, in torch; `places.py` has the same in device code.

No number of slots depends on where sequences start, so that nothing waits for the device and a compiled program serves
all boundaries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import Tensors


def slot_owners(bounds: Tensor, length: int, chunk: int) -> Tensor:
    """The sequence that owns each slot of a chunk, as `places.py` lays them out.

    Args:
        bounds: boundaries [S+1], integers.
        length: T.
        chunk: steps per chunk.

    Returns:
        [length // chunk + S] integers.
    """
    count = len(bounds) - 1
    sequences = torch.arange(count, device=bounds.device)
    slots = torch.arange(length // chunk + count, device=bounds.device)
    return torch.searchsorted(bounds[:-1] // chunk + sequences, slots, right=True) - 1


def first_slots(bounds: Tensor, chunk: int) -> Tensor:
    """The first slot of every sequence [S], with `bounds` as of `slot_owners`."""
    return bounds[:-1] // chunk + torch.arange(len(bounds) - 1, device=bounds.device)


def slot_steps(bounds: Tensor, length: int, chunk: int) -> tuple[Tensor, Tensor]:
    """The steps of the chunks in all slots, any where there is none, and where there is one; both [slots, chunk]."""
    owners = slot_owners(bounds, length, chunk)
    slots = torch.arange(len(owners), device=bounds.device)
    starts = bounds[owners] + (slots - first_slots(bounds, chunk)[owners]) * chunk
    steps = starts.unsqueeze(1) + torch.arange(chunk, device=bounds.device)
    return steps.clamp(0, length - 1), steps < bounds[owners + 1].unsqueeze(1)


def step_places(bounds: Tensor, length: int, chunk: int) -> Tensor:
    """The place of every step among those of all slots [T]."""
    steps = torch.arange(length, device=bounds.device)
    own = torch.searchsorted(bounds[1:].contiguous(), steps, right=True)
    return first_slots(bounds, chunk)[own] * chunk + steps - bounds[own]


def in_slots(tensor: Tensor, steps: Tensor, filled: Tensor, empty: Tensor | float = 0.0) -> Tensor:
    """A tensor [B,T,...] as chunks [B,slots,chunk,...], `empty` where a slot holds no step; differentiable."""
    return torch.where(filled.view(*filled.shape, *(1,) * (tensor.dim() - 2)), tensor[:, steps], empty)


def formula_inputs(inputs: Tensors, chunk: int, empty_transition: Tensor | float) -> tuple[list[Tensor], Tensor]:
    """What `formula` of the chunkwise forms takes, from what the forms of kernels take, by differentiable operations.

    Args:
        inputs: query, key, value, source, transition, mark, direct [B,T,...], initial states [B,S,...], boundaries of
            the sequences [B,S+1].
        chunk: steps per chunk.
        empty_transition: what passes a state on.

    Returns:
        The first seven as [B,slots,chunk,...] in the dtype of the states, the states, the first chunks of the sequences
        [B,S], and no borders [B,0]; and the places of the steps among those of the slots [T].
    """
    *tensors, states, positions = inputs
    bounds, length = positions[0].detach().long(), tensors[0].shape[1]
    steps, filled = slot_steps(bounds, length, chunk)
    chunks = [in_slots(tensor.to(states.dtype), steps, filled) for tensor in tensors]
    chunks[4] = in_slots(tensors[4].to(states.dtype), steps, filled, empty_transition)
    starts = first_slots(bounds, chunk).to(states.dtype).expand(len(states), -1)
    return [*chunks, states, starts, states.new_zeros(len(states), 0)], step_places(bounds, length, chunk)
