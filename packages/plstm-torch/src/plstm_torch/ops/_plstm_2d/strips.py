"""Systems that follow one another as one system: columns make strips and blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad

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


def _formula(to_state: Tensor, to_inputs: Tensor, *, backwards: bool) -> Tensors:
    _, n, rows, state = to_state.shape
    size, out = to_inputs.shape[3], rows - state
    carry = torch.eye(state, dtype=to_state.dtype, device=to_state.device).expand(len(to_state), state, state)
    write = to_state.new_zeros(len(to_state), state, n * size)
    reads: list[Tensor] = []
    nodes: list[Tensor] = []
    for k in _order(n, backwards):
        own = pad(to_inputs[:, k], (k * size, (n - 1 - k) * size))
        read, carry = (to_state[:, k] @ carry).split([out, state], 1)
        node, write = (to_state[:, k] @ write + own).split([out, state], 1)
        reads.append(read)
        nodes.append(node)
    if backwards:
        reads, nodes = reads[::-1], nodes[::-1]
    return torch.stack(reads, 1), torch.stack(nodes, 1), carry, write


def _order(n: int, backwards: bool) -> range:
    return range(n - 1, -1, -1) if backwards else range(n)


def _known(k: int, n: int, size: int, backwards: bool) -> tuple[slice, slice]:
    """Columns of the inputs that the walk has passed before system k, and those of system k itself."""
    own = slice(k * size, (k + 1) * size)
    return (slice(own.stop, n * size) if backwards else slice(0, own.start)), own


def _forward(to_state: Tensor, to_inputs: Tensor, *, backwards: bool) -> tuple[Tensors, Tensors]:
    read, nodes, carry, write, carries, writes = _allocate(to_state, to_inputs)
    nodes.zero_()
    writes.zero_()
    n, out = read.shape[1:3]
    previous = None
    for k in _order(n, backwards):
        known, own = _known(k, n, to_inputs.shape[3], backwards)
        of_state = to_state[:, k]
        if previous is not None:
            of_inputs = torch.bmm(of_state, writes[:, previous, :, known])
            of_state = torch.bmm(of_state, carries[:, previous])
            nodes[:, k, :, known], writes[:, k, :, known] = of_inputs[:, :out], of_inputs[:, out:]
        read[:, k], carries[:, k] = of_state[:, :out], of_state[:, out:]
        nodes[:, k, :, own], writes[:, k, :, own] = to_inputs[:, k, :out], to_inputs[:, k, out:]
        previous = k
    carry.copy_(carries[:, previous])
    write.copy_(writes[:, previous])
    return (read, nodes, carry, write), (carries, writes)


def _gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors, *, backwards: bool) -> Tensors:
    (to_state, to_inputs), (carries, writes) = inputs, saved
    d_read, d_nodes, d_carry, d_write = cotangents
    d_to_state, d_to_inputs = torch.empty_like(to_state), torch.empty_like(to_inputs)
    n, out = d_read.shape[1:3]
    order = _order(n, backwards)
    for k in reversed(order):
        known, own = _known(k, n, to_inputs.shape[3], backwards)
        # d_write covers the own columns and the known ones, in the order of the image
        widths = (known.stop - known.start, own.stop - own.start)
        d_known, d_own = d_write.split(widths[::-1] if backwards else widths, 2)[:: -1 if backwards else 1]
        d_to_inputs[:, k, :out], d_to_inputs[:, k, out:] = d_nodes[:, k, :, own], d_own
        of_state = torch.cat([d_read[:, k], d_carry], 1)
        if k == order[0]:
            d_to_state[:, k] = of_state
            break
        previous = k + 1 if backwards else k - 1
        of_inputs = torch.cat([d_nodes[:, k, :, known], d_known], 1)
        d_to_state[:, k] = torch.baddbmm(
            of_state @ carries[:, previous].mT, of_inputs, writes[:, previous, :, known].mT
        )
        transposed = to_state[:, k].mT
        d_carry, d_write = torch.bmm(transposed, of_state), torch.bmm(transposed, of_inputs)
    return d_to_state, d_to_inputs


def _allocate(to_state: Tensor, to_inputs: Tensor) -> Tensors:
    count, n, rows, state = to_state.shape
    width, out = n * to_inputs.shape[3], rows - state
    shapes = (n, out, state), (n, out, width), (state, state), (state, width), (n, state, state), (n, state, width)
    return tuple(to_state.new_empty(count, *shape) for shape in shapes)


def _form(name: str, backwards: bool) -> FastForm:
    forward, gradients = partial(_forward, backwards=backwards), partial(_gradients, backwards=backwards)
    return FastForm(name, partial(_formula, backwards=backwards), forward, gradients, _allocate, num_outputs=4)


_FORWARDS, _BACKWARDS = _form("grid_follow", False), _form("grid_follow_backwards", True)
