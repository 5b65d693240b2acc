"""Sequences packed along T: where they start, and how they are laid out in chunks of their own.

Forms take the states of all sequences, [B,S,...], and the position (step or chunk) at which each sequence starts. The
positions are the same for all of B; they stand in a floating tensor [B,S], a constant with a zero gradient, so that
they pass through every transform like any other batch-first input.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from plstm_config.options import check_cu_seqlens

Index = Tensor | slice


def constant_positions(positions: Tensor, like: Tensor) -> Tensor:
    """Integer positions [S] as forms take them, [B,S] in the dtype and with the batch size of `like`."""
    return positions.to(like.dtype).expand(like.shape[0], -1)


def host_positions(positions: Tensor) -> list[int]:
    """The numbers in positions [B,S]; a single sequence starts at 0, which saves waiting for the device."""
    batch, sequences = positions.shape
    if sequences == 1 or batch == 0:
        return [0] * sequences
    return [int(position) for position in positions[0].tolist()]


def index_of(numbers: list[int], like: Tensor) -> Index:
    """What selects these places of an axis; a slice, which is cheaper, where they follow one another."""
    first = numbers[0] if numbers else 0
    if numbers == list(range(first, first + len(numbers))):
        return slice(first, first + len(numbers))
    return torch.tensor(numbers, device=like.device, dtype=torch.int64)


def entering_state(state: Tensor, states: Tensor, starts: Tensor, position: int) -> Tensor:
    """What enters at a position: `state`, or the initial state of the sequence that starts there; differentiable.

    Args:
        state: what leaves the position before [B,...].
        states: initial states [B,S,...].
        starts: [B,S].
        position: step or chunk.

    Returns:
        The state [B,...].
    """
    sequence = (starts.detach() <= position).sum(1, keepdim=True) - 1
    begins = starts.detach().gather(1, sequence) == position
    trailing = (1,) * (state.dim() - 1)
    own = torch.take_along_dim(states, sequence.view(-1, 1, *trailing), 1).squeeze(1)
    return torch.where(begins.view(-1, *trailing), own, state)


def last_states(after: Tensor, states: Tensor, starts: Tensor) -> Tensor:
    """The state that each sequence ends with, its initial one if it is empty; differentiable.

    Args:
        after: states after every position [B,N,...].
        states: initial states [B,S,...].
        starts: [B,S].

    Returns:
        [B,S,...].
    """
    starts = starts.detach()
    ends = torch.cat([starts[:, 1:], torch.full_like(starts[:, :1], after.shape[1])], 1)
    trailing = (1,) * (states.dim() - 2)
    final = torch.take_along_dim(after, (ends - 1).clamp_min(0).long().view(*ends.shape, *trailing), 1)
    return torch.where((ends > starts).view(*ends.shape, *trailing), final, states)


@dataclass(frozen=True)
class Layout:
    """Chunks that hold steps of one sequence each; every sequence has at least one, so that its state passes through.

    Attributes:
        starts: first chunk of each sequence [S].
        steps: the step that each place holds [N*C]; any where it is empty.
        filled: whether it holds one [N*C].
        places: the place of each step [T].
    """

    starts: Tensor
    steps: Tensor
    filled: Tensor
    places: Tensor


def layout(bounds: Tensor, length: int, chunk: int) -> Layout:
    """Lays packed sequences out in chunks.

    Args:
        bounds: boundaries [S+1].
        length: T.
        chunk: steps per chunk.

    Returns:
        Where every step lies.
    """
    lengths = bounds.diff()
    counts = ((lengths + chunk - 1) // chunk).clamp_min(1)
    ends = counts.cumsum(0)
    # no graph can depend on values: a sequence leaves less than one chunk unfilled
    total = length // chunk + len(counts) if torch.compiler.is_compiling() else int(ends[-1])
    starts = ends - counts
    chunks = torch.arange(total, device=bounds.device)
    sequence = torch.searchsorted(ends, chunks, right=True).clamp_max(len(counts) - 1)
    within = torch.arange(chunk, device=bounds.device) + ((chunks - starts[sequence]) * chunk).unsqueeze(1)
    filled = within < lengths[sequence].unsqueeze(1)
    steps = torch.where(filled, within + bounds[sequence].unsqueeze(1), 0)
    times = torch.arange(length, device=bounds.device)
    own = torch.searchsorted(bounds[1:].contiguous(), times, right=True)
    places = starts[own] * chunk + times - bounds[own]
    return Layout(starts, steps.flatten(), filled.flatten(), places)


def checked_bounds(cu_seqlens: Tensor, length: int, device: torch.device) -> Tensor:
    """Boundaries [S+1] as int64 on a device.

    Raises:
        TypeError: if they are no integers.
        ValueError: if they have no values, do not start at 0, decrease, or do not end at `length`. Not while a graph is
            traced, which cannot look at values.
    """
    if torch.compiler.is_compiling():
        return cu_seqlens.to(device, torch.int64)
    if isinstance(cu_seqlens, Tensor) and cu_seqlens.is_meta:
        raise ValueError("cu_seqlens: expected boundaries with values, got a tensor on the device meta")
    return torch.tensor(check_cu_seqlens(cu_seqlens, length), device=device)
