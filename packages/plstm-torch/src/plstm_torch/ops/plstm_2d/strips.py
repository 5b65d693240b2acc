"""Systems that follow one another as one system: columns make strips and blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import FastForm, Tensors


@dataclass(frozen=True)
class System:
    """n systems in a row as one; outputs and inputs are listed in the order of the image."""

    read: Tensor  # [*, n, out, state]: from the entering state to the outputs
    nodes: Tensor  # [*, n, out, n, in]: from the inputs to the outputs
    carry: Tensor  # [*, state, state]: from the entering to the leaving state
    write: Tensor  # [*, state, n, in]: from the inputs to the leaving state


def follow(to_state: Tensor, to_inputs: Tensor, backwards: bool) -> System:
    """Lets systems follow one another.

    Args:
        to_state: [*, n, out + state, state], responses of the systems to their state.
        to_inputs: [*, n, out + state, in], responses to their inputs.
        backwards: whether the walk starts at the last of them.

    Returns:
        The system that they make together.
    """
    lead, n, size = to_state.shape[:-3], to_state.shape[-3], to_inputs.shape[-1]
    form = _BACKWARDS if backwards else _FORWARDS
    results = form(to_state.flatten(0, -4), to_inputs.flatten(0, -4))
    read, nodes, carry, write = (result.view(*lead, *result.shape[1:]) for result in results)
    return System(read, nodes.unflatten(-1, (n, size)), carry, write.unflatten(-1, (n, size)))


def _formula(to_state: Tensor, to_inputs: Tensor, backwards: bool) -> Tensors:
    n, state, size = to_state.shape[1], to_state.shape[3], to_inputs.shape[3]
    out = to_state.shape[2] - state
    carry = torch.eye(state, dtype=to_state.dtype, device=to_state.device).expand(len(to_state), state, state)
    write = to_state.new_zeros(len(to_state), state, n * size)
    reads: list[Tensor] = []
    nodes: list[Tensor] = []
    for k in reversed(range(n)) if backwards else range(n):
        own = torch.nn.functional.pad(to_inputs[:, k], (k * size, (n - 1 - k) * size))
        read, carry = (to_state[:, k] @ carry).split([out, state], 1)
        node, write = (to_state[:, k] @ write + own).split([out, state], 1)
        reads.append(read)
        nodes.append(node)
    if backwards:
        reads, nodes = reads[::-1], nodes[::-1]
    return torch.stack(reads, 1), torch.stack(nodes, 1), carry, write


def _walk(n: int, size: int, state: int, backwards: bool) -> list[tuple[int, slice, slice, slice]]:
    """For every step: the system, the columns known before it, its own columns and the node columns known before it.

    The columns of a response are the state and the inputs in the order of the walk's start: state first if it goes
    forwards, state last if it goes backwards, so that what is known is always one piece.
    """
    steps = []
    for k in range(n):
        if backwards:
            place = n - 1 - k
            begin = (place + 1) * size
            steps.append((place, slice(begin, n * size + state), slice(place * size, begin), slice(begin, n * size)))
        else:
            known = state + k * size
            steps.append((k, slice(0, known), slice(known, known + size), slice(0, k * size)))
    return steps


def _forward(to_state: Tensor, to_inputs: Tensor, backwards: bool) -> tuple[Tensors, Tensors]:
    count, n, rows, state = to_state.shape
    size, out = to_inputs.shape[3], rows - state
    read = to_state.new_empty(count, n, out, state)
    nodes = to_state.new_zeros(count, n, out, n * size)
    states = to_state.new_empty(count, n, state, state + n * size)
    at_state = slice(n * size, None) if backwards else slice(0, state)
    previous: Tensor | None = None
    for k, known, own, inputs in _walk(n, size, state, backwards):
        after = states[:, k]
        if previous is None:
            response = to_state[:, k]
        else:
            response = torch.bmm(to_state[:, k], previous[:, :, known])
            nodes[:, k, :, inputs] = response[:, :out, size_of(inputs, known, backwards)]
        read[:, k] = response[:, :out, -state:] if backwards else response[:, :out, :state]
        after[:, :, known] = response[:, out:]
        after[:, :, own] = to_inputs[:, k, out:]
        nodes[:, k, :, k * size : (k + 1) * size] = to_inputs[:, k, :out]
        previous = after
    last = states[:, 0 if backwards else -1]
    at_inputs = slice(0, n * size) if backwards else slice(state, None)
    return (read, nodes, last[:, :, at_state].clone(), last[:, :, at_inputs].clone()), (states,)
