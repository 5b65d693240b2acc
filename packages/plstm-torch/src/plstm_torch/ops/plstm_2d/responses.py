"""What a block of the grid does to its inputs and to the border states that enter it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from plstm_torch.ops.plstm_2d.problem import Flips, Gates, flip_each, map_gates
from plstm_torch.ops.plstm_2d.systems import chain, column_systems


@dataclass(frozen=True)
class Responses:
    """Linear maps of blocks, indices in the order of the image; `*` counts blocks, `border` = (BY + BX) * JT.

    A border state lists left before top on the way in, right before bottom on the way out.
    """

    nodes: Tensor  # [B, *, BX, BY, JO, JQ, BX, BY, JK, JV]: inputs to outputs, the orientations summed
    read: Tensor | None = None  # [B, O, *, BX, BY, JO, JQ, border]: the entering state to the outputs
    write: Tensor | None = None  # [B, O, *, border, BX, BY, JK, JV]: inputs to the leaving state
    carry: Tensor | None = None  # [B, O, *, border, border]: the entering state to the leaving state


def block_responses(gates: Gates, flips: Flips, border: bool) -> Responses:
    """Responses of blocks for any gates: columns, chained along X.

    Args:
        gates: [B, O, *, BX, BY, ...].
        flips: walking directions of the orientations.
        border: whether the maps from and to the border states are wanted.

    Returns:
        The maps; `direct` is not among them.
    """
    bx, by, jt, jk, jv = gates.source_r.shape[-5:]
    jo, jq = gates.mark_l.shape[-3:-1]
    axis = gates.source_r.dim() - 5
    turned = tuple((flip_x, False) for flip_x, _ in flips)
    ordered = map_gates(gates, lambda gate: flip_each(gate, turned, axis, None))
    system = chain(column_systems(ordered, flips, border), by * jt, border)

    def to_image(response: Tensor, *axes: int) -> Tensor:
        for x_axis in axes:
            response = flip_each(response, turned, x_axis, None)
        return response

    if not border:
        nodes = system.unflatten(-1, (bx, by, jk, jv)).unflatten(axis, (bx, by, jo, jq))
        return Responses(to_image(nodes, axis, axis + 4).sum(1))
    left, out, into = by * jt, by * jo * jq, by * jk * jv
    rows = system[..., :-left, :].unflatten(axis, (bx, out + jt))
    to_nodes, to_bottom = to_image(rows, axis).split([out, jt], axis + 1)
    to_border = torch.cat([system[..., -left:, :], to_bottom.flatten(axis, axis + 1)], axis)

    def by_input(response: Tensor) -> tuple[Tensor, Tensor]:
        """Splits [*, left + BX * (in + JT)] into the responses to the nodes and to the border."""
        last = response.dim() - 1
        columns = to_image(response[..., left:].unflatten(-1, (bx, into + jt)), last)
        from_nodes, from_top = columns.split([into, jt], last + 1)
        return from_nodes.unflatten(-1, (by, jk, jv)), torch.cat([response[..., :left], from_top.flatten(-2)], last)

    nodes, read = by_input(to_nodes.unflatten(axis + 1, (by, jo, jq)))
    write, carry = by_input(to_border)
    return Responses(nodes.sum(1), read, write, carry)
