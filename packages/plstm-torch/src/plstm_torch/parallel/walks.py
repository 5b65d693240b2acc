"""The orientations of the recurrence on a grid, as walks through this rank's tile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor

from plstm_torch import ops
from plstm_torch.dtypes import accumulation_dtype, without_autocast
from plstm_torch.ops._arguments import attach, common_dtype
from plstm_torch.ops._plstm_2d.problem import FOUR_ORIENTATIONS
from plstm_torch.parallel.wavefront import States, Tiles, Walk, run_tiles

Passed = tuple[Tensor, States]


@dataclass(frozen=True)
class Way:
    """An orientation.

    Attributes:
        arguments: query to direct, and all gates, by name [B,X,Y,...]; None where there is none.
        backwards: whether it goes through the ranks from the last to the first, along X and along Y.
        turned: whether its arguments are in image coordinates, so that the tile has to be turned for it, too.
    """

    arguments: Mapping[str, Tensor | None]
    backwards: tuple[bool, bool]
    turned: bool = True

    def turn(self, tensor: Tensor) -> Tensor:
        """A tile [B,X,Y,...] as the walk sees it, or back."""
        axes = [axis for axis, back in zip((1, 2), self.backwards, strict=True) if back and self.turned]
        return tensor.flip(axes) if axes else tensor

    def turn_borders(self, borders: States) -> States:
        """What enters or leaves, left or right [B,Y,...] and top or bottom [B,X,...], as the walk sees it, or back."""
        left, top = borders
        back_x, back_y = self.backwards
        if not self.turned:
            return borders
        return (left.flip(1) if back_y else left), (top.flip(1) if back_x else top)


def oriented_ways(inputs: Mapping[str, Tensor], gates: Mapping[str, Tensor | None]) -> list[Way]:
    """The four orientations of gates [B,O,X,Y,...]; the direct term counts in the first one only."""
    nothing = inputs["direct"].new_zeros(()).expand(inputs["direct"].shape)
    ways = []
    for index, backwards in enumerate(FOUR_ORIENTATIONS):
        own = {name: None if gate is None else gate[:, index] for name, gate in gates.items()}
        direct = inputs["direct"] if index == 0 else nothing
        ways.append(Way({**inputs, **own, "direct": direct}, backwards))
    return ways


def run_walks(
    ways: Sequence[Way], tiles: Tiles, states: Sequence[States] | None, parts: int, options: Mapping[str, Any]
) -> list[Passed]:
    """Run orientations through this rank's tile.

    Args:
        ways: the orientations.
        tiles: where the ranks lie.
        states: of each what enters the grid, or None.
        parts: number of parts that the batch is cut into.
        options: of the op.

    Returns:
        Of each the output in the dtype of the computation, and what leaves the tile.
    """
    given = [tensor for way in ways for tensor in way.arguments.values() if tensor is not None]
    given += [border for borders in states or () for border in borders]
    dtype = accumulation_dtype(common_dtype(given))
    key, value = cast(Tensor, ways[0].arguments["key"]), cast(Tensor, ways[0].arguments["value"])
    transition = cast(Tensor, ways[0].arguments["transition_rl"])
    (batch, x, y), tail = key.shape[:3], (key.shape[3], value.shape[3], transition.shape[-1])
    zero = (key.new_zeros(batch, y, *tail, dtype=dtype), key.new_zeros(batch, x, *tail, dtype=dtype))

    def walk(index: int) -> Walk:
        way = ways[index]
        turned = {name: way.turn(tensor) for name, tensor in way.arguments.items() if tensor is not None}
        turned["value"] = turned["value"].to(dtype)  # so that the output is rounded once, after a sum of orientations

        def operate(rows: slice, entering: States) -> Passed:
            part: dict[str, Any] = {name: tensor[rows] for name, tensor in turned.items()}
            return cast(Passed, ops.plstm_2d(**part, initial_state=entering, return_last_state=True, **options))

        borders = zero if states is None else (states[index][0].to(dtype), states[index][1].to(dtype))
        return Walk(way.backwards, operate, way.turn_borders(borders))

    anchor = attach(key.new_zeros((), dtype=dtype), *(tensor[:0] for tensor in given))
    with without_autocast(key):
        passed = run_tiles([walk(index) for index in range(len(ways))], tiles, batch, parts, anchor)
    return [(way.turn(output), way.turn_borders(last)) for way, (output, last) in zip(ways, passed, strict=True)]
