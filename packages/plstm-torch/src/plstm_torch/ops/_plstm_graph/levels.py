"""pLSTM on graphs level by level: one gather, one product and one scatter for a level of all graphs at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from plstm_torch.ops._contract import contract
from plstm_torch.ops._fast_form import CarefulForm, Tensors, apply_form, vjp
from plstm_torch.ops._plstm_graph.plan import LevelSchedule

# Numbers of a temporary: a block of states that stays in cache between its passes.
_BLOCK = 1 << 20
# Numbers in the states of the heads that are evaluated at once where another form was not careful enough.
_STATES = 1 << 24


class LevelForm:
    """States of all edges and what their heads read, with a hand-written backward pass; see `FastForm`.

    The inputs of every function, edges and line edges in the order of the schedule:

        key: [H,E,DK,JK] of the tail.
        written: value of the tail contracted with the source [H,E,JT,JK,DV].
        transition: [H,L,JT,JT].
        reading: query of the head contracted with the mark [H,E,JO,JT*DK].
        initial_state: [H,E,JT,DK,DV], or left out.

    The outputs: what is read [H,E,JO,DV] and, if asked for, the states [H,E,JT,DK,DV].
    """

    careful: CarefulForm | None = None  # a state only meets what it depends on

    def __init__(self, schedule: LevelSchedule, return_states: bool) -> None:
        self.num_outputs = 2 if return_states else 1
        self.formula: Callable[..., Tensors] = partial(_formula, schedule, return_states)
        self.forward: Callable[..., tuple[Tensors, Tensors]] = partial(_forward, schedule, return_states)
        self.gradients: Callable[[Tensors, Tensors, Tensors], Tensors] = partial(_gradients, schedule)


class Order(Protocol):
    """What says where the edges start and end: a `LevelSchedule`, or its tensors alone."""

    @property
    def tail(self) -> Tensor:
        """Node where each edge starts [E]."""

    @property
    def head(self) -> Tensor:
        """Node where each edge ends [E]."""


class LevelReadForm:
    """The same function of the same inputs as `DenseForm`, level by level; its passes run where nothing is traced.

    What it saves are the states, edges first as they are computed: [E,H,JT,DK,DV].
    """

    num_outputs = 1
    careful: CarefulForm | None = None

    def __init__(self, schedule: LevelSchedule) -> None:
        self.forward: Callable[..., tuple[Tensors, Tensors]] = partial(_read_forward, schedule)
        self.gradients: Callable[[Tensors, Tensors, Tensors], Tensors] = partial(_read_gradients, schedule)

    def saved_shapes(self, *inputs: Tensor) -> list[tuple[int, ...]]:
        """Shapes of what `forward` saves."""
        _, key, value, source, *_ = inputs
        return [(source.shape[1], source.shape[0], source.shape[2], key.shape[2], value.shape[2])]


def edge_factors(
    order: Order, query: Tensor, key: Tensor, value: Tensor, source: Tensor, transition: Tensor, mark: Tensor
) -> Tensors:
    """Inputs of `LevelForm` but the initial state, from query, key and value of nodes and the gates of edges."""
    keys, values = (tensor.index_select(1, order.tail) for tensor in (key, value))
    written = _product(source.flatten(2, 3), values.mT).unflatten(2, source.shape[2:4])
    queries = query.index_select(1, order.head)
    reading = _product(mark.mT.flatten(2, 3), queries.mT).unflatten(2, (mark.shape[2], mark.shape[4])).flatten(3)
    return keys, written, transition, reading


def read_by_levels(schedule: LevelSchedule, *inputs: Tensor) -> Tensors:
    """What the nodes read from the edges [H,N,DV,JO]; inputs as in `edge_factors`."""
    query, value, mark = inputs[0], inputs[2], inputs[5]
    (read,) = apply_form(LevelForm(schedule, False), *edge_factors(schedule, *inputs))
    nothing = query.new_zeros(*value.shape[:3], mark.shape[2])
    return (nothing.index_add(1, schedule.head, read.mT),)


def _read_forward(schedule: LevelSchedule, *inputs: Tensor) -> tuple[Tensors, Tensors]:
    value, mark = inputs[2], inputs[5]
    (read,), (states,) = _forward(schedule, False, *edge_factors(schedule, *inputs))
    nothing = value.new_zeros(*value.shape[:3], mark.shape[2])
    return (nothing.index_add(1, schedule.head, read.mT),), (states.transpose(0, 1),)


def _read_gradients(schedule: LevelSchedule, inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    factors, pull = vjp(partial(edge_factors, schedule), *inputs)
    d_read = cotangents[0].index_select(1, schedule.head).mT
    return tuple(pull(_gradients(schedule, factors, (saved[0].transpose(0, 1),), (d_read,))))


def careful(function: Callable[..., Tensors], numbers: int) -> CarefulForm:
    """A function by levels as the careful form of another.

    Args:
        function: evaluates a `LevelForm`.
        numbers: in the states of a head, which bound how many heads are evaluated at once.

    Returns:
        The form.
    """
    rows = max(1, _STATES // max(1, numbers))
    return CarefulForm(function, lambda *_: rows)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Left @ right; without a batched product where the inner dimension is one."""
    return left * right if left.shape[-1] == 1 else contract("heij,hejk->heik", left, right)


def _formula(schedule: LevelSchedule, return_states: bool, *inputs: Tensor) -> Tensors:
    key, written, transition, reading, *initial = inputs
    states = key.unsqueeze(2) @ written
    if initial:
        states = states + initial[0]
    for start, end in zip(schedule.levels[1:], schedule.levels[2:], strict=False):
        first, last = schedule.lines_into[start], schedule.lines_into[end]
        came = states.index_select(1, schedule.incoming[first:last])
        moved = torch.einsum("hlst,hltkv->hlskv", transition[:, first:last], came)
        states = states.index_add(1, schedule.outgoing[first:last], moved)
    read = reading @ states.flatten(2, 3)
    return (read, states) if return_states else (read,)


def _forward(schedule: LevelSchedule, return_states: bool, *inputs: Tensor) -> tuple[Tensors, Tensors]:
    key, written, transition, reading, *initial = (_edges_first(tensor) for tensor in inputs)
    num_edges, heads, jt, _, dv = written.shape
    states = key.new_empty(num_edges, heads, jt, key.shape[2], dv)
    read = key.new_empty(*reading.shape[:3], dv)
    size = _block_size(states)
    for start, end, levels in schedule.blocks(size):
        block = states[start:end]
        _multiply(key[start:end].unsqueeze(2), written[start:end], block)
        if initial:
            block.add_(initial[0][start:end])
        for first_edge, last_edge in levels:
            bounds = schedule.lines_into[first_edge], schedule.lines_into[last_edge]
            for first in range(*bounds, size):
                lines = slice(first, min(first + size, bounds[1]))
                came = states.index_select(0, schedule.incoming[lines])
                states.index_add_(0, schedule.outgoing[lines], _move(transition[lines], came))
        _multiply(reading[start:end], block.flatten(2, 3), read[start:end])
    saved = (states.transpose(0, 1),)
    return ((read.transpose(0, 1), states.clone().transpose(0, 1)) if return_states else (read.transpose(0, 1),)), saved


def _gradients(schedule: LevelSchedule, inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    key, written, transition, reading, *initial = (_edges_first(tensor) for tensor in inputs)
    states, d_read = _edges_first(saved[0]), _edges_first(cotangents[0])
    d_states = _edges_first(cotangents[1]) if len(cotangents) > 1 else None
    adjoint = torch.empty_like(states)
    # keys by rows: a row times the transposed adjoint is half as expensive as the adjoint times a column
    d_key, d_written, d_reading = (torch.empty_like(tensor) for tensor in (key.mT, written, reading))
    d_transition = torch.empty_like(transition)
    size = _block_size(states)
    for start, end, levels in reversed(list(schedule.blocks(size))):
        block = adjoint[start:end]
        _multiply(d_read[start:end], states[start:end].flatten(2, 3).mT, d_reading[start:end])
        _multiply(reading[start:end].mT, d_read[start:end], block.flatten(2, 3))
        if d_states is not None:
            block.add_(d_states[start:end])
        for first_edge, last_edge in reversed(levels):
            bounds = schedule.lines_out_of[first_edge], schedule.lines_out_of[last_edge]
            for first in range(*bounds, size):
                lines = schedule.by_incoming[first : min(first + size, bounds[1])]
                incoming = schedule.incoming.index_select(0, lines)
                later = adjoint.index_select(0, schedule.outgoing.index_select(0, lines))
                d_transition[lines] = _inner(states.index_select(0, incoming), later)
                adjoint.index_add_(0, incoming, _move(transition.index_select(0, lines).mT, later))
        _sum_of_products(written[start:end], block.mT, d_key[start:end])
        _multiply(key[start:end].unsqueeze(2).mT, block, d_written[start:end])
    gradients = [d_key.mT, d_written, d_transition, d_reading, *([adjoint] if initial else [])]
    return tuple(gradient.transpose(0, 1) for gradient in gradients)


def _edges_first(tensor: Tensor) -> Tensor:
    return tensor.transpose(0, 1).contiguous()


def _block_size(states: Tensor) -> int:
    return max(1, _BLOCK // max(1, math.prod(states.shape[1:])))


def _move(transition: Tensor, states: Tensor) -> Tensor:
    """T C with [...,JT,JT] and [...,JT,DK,DV]; `states` may be overwritten."""
    if transition.shape[-1] == 1:
        return states.mul_(transition.unsqueeze(-1))
    return (transition @ states.flatten(-2)).view_as(states)


def _inner(states: Tensor, adjoint: Tensor) -> Tensor:
    """A C^T over DK and DV: [...,JT,DK,DV] twice to [...,JT,JT]; `states` may be overwritten."""
    if states.shape[2] == 1:  # a batched product of a row and a column is four times slower
        return states.mul_(adjoint).sum((-2, -1)).unsqueeze(-1)
    return adjoint.flatten(-2) @ states.flatten(-2).mT


def _multiply(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Left @ right, broadcast over the axes before the last two; `matmul` would copy its result into `out`."""
    leading = out.shape[:-2]
    left, right = (tensor.expand(*leading, *tensor.shape[-2:]).flatten(0, -3) for tensor in (left, right))
    torch.bmm(left, right, out=out.view(-1, *out.shape[-2:]))


def _sum_of_products(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Sum of left @ right over the axis before the last two."""
    if left.shape[2] == 1:
        _multiply(left.squeeze(2), right.squeeze(2), out)
    else:
        torch.sum(left @ right, 2, out=out)
