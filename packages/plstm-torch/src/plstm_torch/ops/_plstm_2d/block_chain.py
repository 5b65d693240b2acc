"""Border states on their way from block to block.

The backward pass needs the states that enter every block, 2 / b of DK DV numbers for each node and orientation with
blocks of b x b nodes. As many columns of blocks as hold `STRIP` numbers make a strip; where there are several, only
what crosses from strip to strip is kept, and each but the last is walked once more when the backward pass comes to it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from plstm_torch.ops._exporting import is_exporting
from plstm_torch.ops._plstm_2d.block_maps import BorderMaps
from plstm_torch.ops._plstm_2d.block_step import dense_step, separable_maps, separable_step
from plstm_torch.ops._plstm_2d.problem import Flips, States, flip_each

BlockGrid = tuple[int, int, int, int]  # blocks along X, nodes of a block along X, the same along Y
STRIP = 1 << 28  # 1 GB in float32


def carry_states(
    inputs: tuple[Tensor, Tensor, Tensor],
    maps: BorderMaps,
    states: States,
    grid: BlockGrid,
    flips: Flips,
    separable: bool,
) -> tuple[Tensor, States]:
    """Hands border states from block to block, all orientations at once, each from its own corner.

    Args:
        inputs: query [B, NX, NY, N, DK, JQ], key [B, NX, NY, N, DK, JK] and value [B, NX, NY, N, DV, JV] of blocks of
            N nodes.
        maps: of the blocks [NX, NY].
        states: what enters, left [B, O, Y, DK, DV, JT] and top [B, O, X, DK, DV, JT].
        grid: how X and Y are cut.
        flips: walking directions of the orientations.
        separable: whether the gates are scalar and of mode "L", which the maps show and which halves the work.

    Returns:
        What the states contribute to the output, [B, NX, NY, N, DV, JO], and what leaves: right, bottom.
    """
    nx, bx, ny, by = grid
    orientations, dk = len(flips), states[0].shape[3]
    step = separable_step if separable else dense_step
    tensors = separable_maps(maps, bx, by) if separable else maps.tensors
    # In the order of the walk all orientations meet their state at the same step.
    tables = [_table(flip_each(tensor, flips, 2, 3).flatten(0, 1)) for tensor in tensors]
    left, top = states[0].unflatten(2, (ny, by)), states[1].unflatten(2, (nx, bx))
    lefts, tops = _to_blocks(flip_each(left, flips, None, 2)), _to_blocks(flip_each(top, flips, 2, None))
    query, key, value = inputs
    rows = [tensor.unbind(1) for tensor in (query, key, value.mT)]
    parts: list[list[Tensor]] = [[] for _ in range(nx)]
    for first, last in _strips(nx, ny * (lefts[0].numel() + tops[0].numel())):
        walk = partial(_walk, range(first, last), step, rows, tables, flips)
        outputs, lefts, tops[first:last] = _kept_or_not(walk, last < nx)(lefts, tops[first:last])
        for i, column in zip(range(first, last), outputs, strict=True):
            for output, (flip_x, flip_y) in zip(column, flips, strict=True):
                parts[nx - 1 - i if flip_x else i].append(output.flip(1) if flip_y else output)
    contribution = torch.stack([sum(part[1:], part[0]) for part in parts], 1)
    right = flip_each(_from_blocks(lefts, by, dk, orientations), flips, None, 2)
    bottom = flip_each(_from_blocks(tops, bx, dk, orientations), flips, 2, None)
    return contribution.mT, (right.flatten(2, 3), bottom.flatten(2, 3))


def _walk(
    columns: range,
    step: Callable[..., tuple[Tensor, Tensor, Tensor]],
    rows: list[tuple[Tensor, ...]],
    tables: list[list[tuple[Tensor, ...]]],
    flips: Flips,
    lefts: list[Tensor],
    tops: list[Tensor],
) -> tuple[list[tuple[Tensor, ...]], list[Tensor], list[Tensor]]:
    """Some columns of blocks: per column outputs [B, NY, ...] of the orientations in the order of the walk, and states.

    Args:
        columns: their numbers in the order of the walk.
        step: of a block.
        rows: query, key and transposed value of the columns in the order of the image.
        tables: the maps, by column and row in the order of the walk.
        flips: walking directions of the orientations.
        lefts: what enters the first column, by row.
        tops: what enters the columns.

    Returns:
        The outputs, what leaves the last column, and what leaves the columns.
    """
    lefts, tops, found = list(lefts), list(tops), []
    for top, i in enumerate(columns):
        places = [len(rows[0]) - 1 - i if flip_x else i for flip_x, _ in flips]
        vectors = [_oriented([row[place] for place in places], flips) for row in rows]
        outputs = []
        for j in range(len(lefts)):
            block = [vector[j] for vector in vectors] + [table[i][j] for table in tables]
            output, lefts[j], tops[top] = step(*block, lefts[j], tops[top])
            outputs.append(output)
        found.append(torch.stack(outputs, 1).unflatten(0, (-1, len(flips))).unbind(1))
    return found, lefts, tops


def _strips(columns: int, numbers: int) -> list[tuple[int, int]]:
    """First column of each strip and the one behind its last, for so many numbers in the states of a column."""
    width = max(1, STRIP // max(1, numbers))
    return [(first, min(first + width, columns)) for first in range(0, columns, width)]


def _kept_or_not(walk: Callable[..., Any], again: bool) -> Callable[..., Any]:
    """The walk, or one that keeps nothing and is done again, where that is asked for and torch can."""
    if not again or not torch.is_grad_enabled() or torch.compiler.is_compiling() or is_exporting():
        return walk
    if torch._C._are_functorch_transforms_active():  # type: ignore[attr-defined, unused-ignore]
        return walk  # they know no hooks of saved tensors
    return partial(checkpoint, walk, use_reentrant=False, preserve_rng_state=False)


def _table(tensor: Tensor) -> list[tuple[Tensor, ...]]:
    return [row.unbind(1) for row in tensor.unbind(1)]


def _oriented(rows: list[Tensor], flips: Flips) -> tuple[Tensor, ...]:
    """A column of blocks [B, NY, ...] for every orientation, as NY tensors [B * O, ...] in the order of the walk."""
    turned = [row.flip(1) if flip_y else row for row, (_, flip_y) in zip(rows, flips, strict=True)]
    return torch.stack(turned, 1).flatten(0, 1).unbind(1)


def _to_blocks(states: Tensor) -> list[Tensor]:
    """[B, O, blocks, nodes, DK, DV, JT] as a list, over blocks, of [B * O, nodes * JT, DK * DV]."""
    return list(states.movedim(-1, 4).flatten(5).flatten(3, 4).flatten(0, 1).unbind(1))


def _from_blocks(blocks: list[Tensor], nodes: int, dk: int, orientations: int) -> Tensor:
    """The inverse of `_to_blocks`."""
    states = torch.stack(blocks, 1).unflatten(0, (-1, orientations))
    return states.unflatten(4, (dk, -1)).unflatten(3, (nodes, -1)).movedim(4, -1)
