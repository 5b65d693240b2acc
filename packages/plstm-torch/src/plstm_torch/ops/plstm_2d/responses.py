"""What blocks of the grid do to their inputs and to the border states that enter them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from plstm_torch.ops.plstm_2d.problem import Flips, Gates
from plstm_torch.ops.plstm_2d.strips import System, follow
from plstm_torch.ops.plstm_2d.systems import column_systems


@dataclass(frozen=True)
class Responses:
    """Linear maps of blocks, indices in the order of the image; `*` counts blocks, `border` = (BY + BX) * JT.

    A border state lists left before top on the way in, right before bottom on the way out.
    """

    nodes: Tensor  # [B, *, BX, BY, JO, JQ, BX, BY, JK, JV]: inputs to outputs, the orientations summed
    read: Tensor  # [B, O, *, BX, BY, JO, JQ, border]: the entering state to the outputs
    write: Tensor  # [B, O, *, border, BX, BY, JK, JV]: inputs to the leaving state
    carry: Tensor  # [B, O, *, border, border]: the entering state to the leaving state


def block_responses(gates: Gates, flips: Flips) -> Responses:
    """Responses of blocks for any gates: columns that follow one another along X.

    Args:
        gates: [B, O, *, BX, BY, ...].
        flips: walking directions of the orientations; orientation o walks X backwards where o is odd.

    Returns:
        The maps; `direct` is not among them.
    """
    by, jt, jk, jv = gates.source_r.shape[-4:]
    jo, jq = gates.mark_l.shape[-3:-1]
    out, into = by * jo * jq, by * jk * jv
    to_state, to_inputs = column_systems(gates, flips, border=True)
    parts = []
    for backwards in sorted({flip_x for flip_x, _ in flips}):
        chosen = slice(int(backwards), None, 2)
        parts.append(_border_last(follow(to_state[:, chosen], to_inputs[:, chosen], backwards), out, into))
    nodes = sum((part[0].sum(1) for part in parts[1:]), parts[0][0].sum(1))
    read, write, carry = (_interleave([part[i] for part in parts]) for i in (1, 2, 3))
    return Responses(
        nodes.unflatten(-1, (by, jk, jv)).unflatten(-5, (by, jo, jq)),
        read.unflatten(-2, (by, jo, jq)),
        write.unflatten(-1, (by, jk, jv)),
        carry,
    )


def _border_last(system: System, out: int, into: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Separates what the columns' outputs and inputs hold for nodes from what they hold for top and bottom."""
    of_nodes, of_bottom = system.nodes.split([out, system.nodes.shape[-3] - out], -3)
    read, bottom_of_left = system.read.split([out, system.read.shape[-2] - out], -2)
    nodes, read_top = of_nodes.split([into, of_nodes.shape[-1] - into], -1)
    bottom_of_nodes, bottom_of_top = of_bottom.split([into, of_bottom.shape[-1] - into], -1)
    write, right_of_top = system.write.split([into, system.write.shape[-1] - into], -1)
    right = torch.cat([system.carry, right_of_top.flatten(-2)], -1)
    bottom = torch.cat([bottom_of_left, bottom_of_top.flatten(-2)], -1).flatten(-3, -2)
    return (
        nodes,
        torch.cat([read, read_top.flatten(-2)], -1),
        torch.cat([write, bottom_of_nodes.flatten(-4, -3)], -3),
        torch.cat([right, bottom], -2),
    )


def _interleave(parts: list[Tensor]) -> Tensor:
    """Orientations that walk X forwards and backwards take turns."""
    return parts[0] if len(parts) == 1 else torch.stack(parts, 2).flatten(1, 2)
