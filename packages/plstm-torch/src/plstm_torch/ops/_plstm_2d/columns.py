"""Columns of the grid as linear systems.

The state of a column is what crosses from column to column (r), its inputs are those of its nodes and what enters at
the top (d), its outputs are those of its nodes and what leaves at the bottom.
"""

from __future__ import annotations

import torch
from torch import Tensor

from plstm_torch.ops._contract import contract
from plstm_torch.ops._plstm_2d.lines import line
from plstm_torch.ops._plstm_2d.problem import Flips, Gates


def column_systems(gates: Gates, flips: Flips, border: bool) -> tuple[Tensor, Tensor]:
    """The system of every column, for any transitions and J dimensions.

    Args:
        gates: [B, O, *, Y, ...].
        flips: walking directions of the orientations; they matter along Y only.
        border: whether to include the input at the top and the output at the bottom.

    Returns:
        Responses to the state [B, O, *, out + state, state] and to the inputs [B, O, *, out + state, in], with
        out = Y * JO * JQ (+ JT), state = Y * JT, in = Y * JK * JV (+ JT).
    """
    gates = gates.with_turns()
    down = line(gates.transition_du, flips, 1)
    source_r, source_d = gates.source_r.flatten(-2), gates.source_d.flatten(-2)
    mark_l, mark_u = gates.mark_l.flatten(-3, -2), gates.upper_mark.flatten(-3, -2)
    y, jt = source_d.shape[-3:-1]

    def rows(arriving: Tensor, bottom: Tensor, reading: Tensor | None, crossing: Tensor | None) -> Tensor:
        """What follows from `arriving` from above [*, Y, JT, columns], and the nodes' own reading and crossing."""
        read = _before(mark_u, arriving).flatten(-3, -2)
        parts = [read if reading is None else read + diagonal(reading)]
        if border:
            parts.append(bottom)
        if gates.transition_ru is not None:
            cross = _before(gates.transition_ru, arriving).flatten(-3, -2)
            parts.append(cross if crossing is None else cross + diagonal(crossing))
        else:
            parts.append(torch.zeros_like(arriving.flatten(-3, -2)) if crossing is None else diagonal(crossing))
        return torch.cat(parts, -2)

    def from_above(gate: Tensor | None) -> tuple[Tensor, Tensor]:
        if gate is None:
            nothing = source_d.new_zeros(*source_d.shape[:-3], y, jt, y * jt)
            return nothing, nothing[..., 0, :, :]
        arriving = _after(down.between.flatten(-4, -3), gate).flatten(-2).unflatten(-2, (y, jt))
        return arriving, _after(down.leave, gate).flatten(-2) if border else arriving

    to_state = rows(*from_above(gates.transition_dl), mark_l, gates.transition_rl)
    to_inputs = rows(*from_above(source_d), None, source_r)
    if border:
        to_inputs = torch.cat([to_inputs, rows(down.enter, down.total, None, None)], -1)
    return to_state, to_inputs


def diagonal(gate: Tensor) -> Tensor:
    """[*, Y, a, b] to [*, Y * a, Y * b]: a node acts on itself only."""
    y = gate.shape[-3]
    eye = torch.eye(y, dtype=gate.dtype, device=gate.device)
    return (gate.unsqueeze(-2) * eye.view(y, 1, y, 1)).flatten(-2).flatten(-3, -2)


def _after(response: Tensor, gate: Tensor) -> Tensor:
    """Puts the gate of every node before a response: [*, rows, Y, JT] and [*, Y, JT, b] to [*, rows, Y, b]."""
    if gate.shape[-2] == 1:
        return response * gate.mT.squeeze(-1).unsqueeze(-3)
    return contract("...ryt,...ytb->...ryb", response, gate)


def _before(gate: Tensor, response: Tensor) -> Tensor:
    """Lets every node's gate act on its response: [*, Y, a, JT] and [*, Y, JT, columns] to [*, Y, a, columns]."""
    return gate * response if gate.shape[-1] == 1 else contract("...ab,...bc->...ac", gate, response)
