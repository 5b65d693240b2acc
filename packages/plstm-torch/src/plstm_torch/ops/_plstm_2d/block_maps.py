"""What blocks of the grid do to their inputs and to the border states that enter them."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from plstm_torch.ops._plstm_2d.columns import column_systems
from plstm_torch.ops._plstm_2d.problem import Flips, Gates
from plstm_torch.ops._plstm_2d.strips import System, follow


@dataclass(frozen=True)
class BorderMaps:
    """Maps [B, O, *, ...] from and to the border states of blocks, N = BX * BY nodes in the order of the image.

    A state has the sizes LEFT = BY * JT on the left and right, TOP = BX * JT at the top and bottom.
    """

    read_left: Tensor  # [*, N, JO, JQ, LEFT]
    read_top: Tensor  # [*, N, JO, JQ, TOP]
    write_right: Tensor  # [*, N, JV, JK, LEFT]
    write_bottom: Tensor  # [*, N, JV, JK, TOP]
    right_of_left: Tensor  # [*, LEFT, LEFT]
    right_of_top: Tensor  # [*, LEFT, TOP]
    bottom_of_left: Tensor  # [*, TOP, LEFT]
    bottom_of_top: Tensor  # [*, TOP, TOP]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in the order of the fields."""
        return tuple(getattr(self, name) for name in _MAPS)


_MAPS = tuple(field.name for field in fields(BorderMaps))


def block_responses(gates: Gates, flips: Flips) -> tuple[Tensor, BorderMaps]:
    """Responses of blocks for any gates: columns that follow one another along X.

    Args:
        gates: [B, O, *, BX, BY, ...].
        flips: walking directions of the orientations; orientation o walks X backwards where o is odd.

    Returns:
        The gating matrices of the blocks [B, *, N, JO, JQ, N, JK, JV], the orientations summed and without `direct`,
        and the maps from and to their border states.
    """
    by, _, jk, jv = gates.source_r.shape[-4:]
    jo, jq = gates.mark_l.shape[-3:-1]
    to_state, to_inputs = column_systems(gates, flips, border=True)
    gating: list[Tensor] = []
    maps: list[BorderMaps] = []
    for backwards in sorted({flip_x for flip_x, _ in flips}):
        chosen = slice(int(backwards), None, 2)
        system = follow(to_state[:, chosen], to_inputs[:, chosen], backwards)
        gating.append(system.nodes[..., : by * jo * jq, :, : by * jk * jv].sum(1))
        maps.append(_border_maps(system, (by, jo, jq), (by, jk, jv)))
    nodes = sum(gating[1:], gating[0]).unflatten(-1, (by, jk, jv)).unflatten(-5, (by, jo, jq))
    # orientations that walk X forwards and backwards take turns
    each_map = zip(*(part.tensors for part in maps), strict=True)
    turns = (torch.stack(each, 2).flatten(1, 2) if len(each) > 1 else each[0] for each in each_map)
    return nodes.flatten(-8, -7).flatten(-4, -3), BorderMaps(*turns)


def _border_maps(system: System, out: tuple[int, int, int], into: tuple[int, int, int]) -> BorderMaps:
    """Separates what the columns' outputs and inputs hold for their nodes from what they hold for bottom and top."""
    rows, columns = out[0] * out[1] * out[2], into[0] * into[1] * into[2]
    read, bottom_of_left = system.read[..., :rows, :], system.read[..., rows:, :]
    write, right_of_top = system.write[..., :columns], system.write[..., columns:]
    read_top, bottom = system.nodes[..., :rows, :, columns:], system.nodes[..., rows:, :, :]
    write_bottom = bottom[..., :columns].flatten(-4, -3).movedim(-3, -1)
    return BorderMaps(
        read_left=read.unflatten(-2, out).flatten(-5, -4),
        read_top=read_top.flatten(-2).unflatten(-2, out).flatten(-5, -4),
        write_right=write.movedim(-3, -1).unflatten(-2, into).flatten(-5, -4).transpose(-3, -2),
        write_bottom=write_bottom.unflatten(-2, into).flatten(-5, -4).transpose(-3, -2),
        right_of_left=system.carry,
        right_of_top=right_of_top.flatten(-2),
        bottom_of_left=bottom_of_left.flatten(-3, -2),
        bottom_of_top=bottom[..., columns:].flatten(-2).flatten(-3, -2),
    )
