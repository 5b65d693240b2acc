"""The pLSTM on a sequence as a loop over its steps: the definition, and the cheapest form of a few steps."""

from __future__ import annotations

import torch
from torch import Tensor

from plstm_torch.ops._contract import contract
from plstm_torch.ops._fast_form import FastForm, Tensors
from plstm_torch.ops._plstm_1d.packing import entering_state, host_positions, last_states


def plstm_1d_recurrent(inputs: Tensors, initial_states: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Output and last states, step by step.

    Args:
        inputs: query, key, value, source, transition, mark (scaled), direct (scaled), shapes as in `plstm_1d`, T >= 1,
            all in the compute dtype.
        initial_states: [B,S,DK,DV,JT].
        starts: first step of each of the S packed sequences [B,S]; an empty one starts where the next one does.

    Returns:
        [B,T,DV,JO] and [B,S,DK,DV,JT].
    """
    query, key, value, source, transition, mark, direct = inputs
    # what does not depend on the state is computed for all steps at once
    if transition.shape[-1] == direct.shape[2:].numel() == 1:
        written, reading = source * value.mT.unsqueeze(2), mark * query.mT.unsqueeze(2)
        own = (query * key).sum((2, 3), keepdim=True) * direct[..., 0, 0] * value.mT
    else:
        written = contract("btakc,btvc->btakv", source, value)
        reading = contract("btoqa,btdq->btoad", mark, query)
        weights = contract("btoqkc,btqk->btoc", direct, contract("btdq,btdk->btqk", query, key))
        own = contract("btoc,btvc->btov", weights, value)
    states = initial_states.movedim(-1, 2).contiguous()
    output, states = plstm_1d_steps(reading, key, written, transition, states, starts)
    return (output + own).mT, states.movedim(2, -1)


def formula(
    reading: Tensor, key: Tensor, written: Tensor, transition: Tensor, initial_states: Tensor, starts: Tensor
) -> Tensors:
    """What is read from the states, and the last states, by differentiable operations.

    Args:
        reading: marks times queries [B,T,JO,JT,DK].
        key: [B,T,DK,JK].
        written: sources times values [B,T,JT,JK,DV].
        transition: [B,T,JT,JT].
        initial_states: [B,S,JT,DK,DV].
        starts: [B,S].

    Returns:
        [B,T,JO,DV] and [B,S,JT,DK,DV].
    """
    state = initial_states[:, 0]
    outputs, after = [], []
    steps = zip(*(tensor.unbind(1) for tensor in (reading, key, written, transition)), strict=True)
    for step, (reading_t, key_t, written_t, transition_t) in enumerate(steps):
        state = entering_state(state, initial_states, starts, step)
        outputs.append(reading_t.flatten(2) @ state.flatten(1, 2))
        passed = (transition_t @ state.flatten(2)).view_as(state)
        state = passed + key_t.unsqueeze(1) @ written_t
        after.append(state)
    return torch.stack(outputs, 1), last_states(torch.stack(after, 1), initial_states, starts)


def _sequences(starts: Tensor, length: int) -> tuple[dict[int, int], dict[int, int], list[int]]:
    """The sequence that starts at a step, the one that ends with it, and the empty ones."""
    bounds = [*host_positions(starts), length]
    held = [n for n in range(len(bounds) - 1) if bounds[n + 1] > bounds[n]]
    empty = [n for n in range(len(bounds) - 1) if bounds[n + 1] <= bounds[n]]
    return {bounds[n]: n for n in held}, {bounds[n + 1] - 1: n for n in held}, empty


def _walk(tensors: Tensors, output: Tensor | None, last: Tensor | None) -> list[Tensor]:
    """The states that enter the steps; only the latest one is kept if the output is asked for."""
    reading, key, written, transition, states, starts = tensors
    begins, finishes, empty = _sequences(starts, key.shape[1])
    entering: list[Tensor] = []
    state = states[:, 0]
    steps = zip(*(tensor.unbind(1) for tensor in (reading.flatten(3), key, written, transition)), strict=True)
    for step, (reading_t, key_t, written_t, transition_t) in enumerate(steps):
        if step in begins:
            state = states[:, begins[step]]
        if output is None:
            entering.append(state)
        else:
            torch.bmm(reading_t, state.flatten(1, 2), out=output[:, step])
        writing = torch.matmul(key_t.unsqueeze(1), written_t)
        if transition_t.shape[-1] == 1:
            state = writing.addcmul_(transition_t.unsqueeze(-1), state)
        else:
            state = writing.flatten(2).baddbmm_(transition_t, state.flatten(2)).view_as(writing)
        if last is not None and step in finishes:
            last[:, finishes[step]] = state
    if last is not None:
        for sequence in empty:
            last[:, sequence] = states[:, sequence]
    return entering


def forward(*tensors: Tensor) -> tuple[Tensors, Tensors]:
    """`formula` by hand; the states are computed again for the gradients, so that none is kept without them."""
    outputs = allocate(*tensors)
    _walk(tensors, *outputs)
    return outputs, ()


def gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    """Gradients by hand: the steps in reverse, then what each step has to itself for all of them at once."""
    reading, key, written, transition, states, starts = inputs
    d_output, d_last = (grad.contiguous() for grad in cotangents)
    begins, finishes, empty = _sequences(starts, key.shape[1])
    entering = _walk(inputs, None, None)
    d_states = states.new_zeros(states.shape)
    d_leaving: list[Tensor] = []
    d_state = d_last[:, -1]
    steps = list(enumerate(zip(*(x.unbind(1) for x in (reading.flatten(3), transition, d_output)), strict=True)))
    for step, (reading_t, transition_t, d_output_t) in reversed(steps):
        if step in finishes:
            d_state = d_last[:, finishes[step]]
        d_leaving.append(d_state)
        d_before = torch.bmm(reading_t.mT, d_output_t).view_as(d_state)
        d_state = d_before.flatten(2).baddbmm_(transition_t.mT, d_state.flatten(2)).view_as(d_state)
        if step in begins:
            d_states[:, begins[step]] = d_state
    for sequence in empty:
        d_states[:, sequence] = d_last[:, sequence]
    before, d_after = torch.stack(entering, 1), torch.stack(d_leaving[::-1], 1)
    d_reading = (d_output @ before.flatten(2, 3).mT).view_as(reading)
    d_transition = d_after.flatten(3) @ before.flatten(3).mT
    d_key = (d_after @ written.mT).sum(2)
    return d_reading, d_key, key.unsqueeze(2).mT @ d_after, d_transition, d_states, starts.new_zeros(starts.shape)


def allocate(*tensors: Tensor) -> Tensors:
    """Empty output and last states."""
    reading, _, written, _, states, _ = tensors
    return reading.new_empty(*reading.shape[:3], written.shape[-1]), states.new_empty(states.shape)


plstm_1d_steps = FastForm("plstm_1d_steps", formula, forward, gradients, allocate, num_outputs=2)
