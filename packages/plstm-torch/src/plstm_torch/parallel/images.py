"""Whole images from tiles: where a tile lies, and what is pooled over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from plstm_torch.dtypes import accumulation_dtype, cat
from plstm_torch.models.pooling import pool_grid
from plstm_torch.ops._arguments import attach
from plstm_torch.parallel.collectives import all_sum
from plstm_torch.parallel.wavefront import Tiles


@dataclass(frozen=True)
class Place:
    """Where a tile lies in its grid.

    Attributes:
        whole: sizes of the grid.
        start: its first node.
        size: its sizes.
    """

    whole: tuple[int, int]
    start: tuple[int, int]
    size: tuple[int, int]

    def cut(self, grid: Tensor) -> Tensor:
        """The tile of a whole grid [B,X,Y,...]."""
        x, y = (slice(start, start + size) for start, size in zip(self.start, self.size, strict=True))
        return grid[:, x, y]


def in_line(tiles: Tiles, sides: Sequence[tuple[int, ...]]) -> tuple[list[int], list[int]]:
    """The X of all tiles in line with this one along X, and the Y of those along Y.

    Args:
        tiles: where the ranks lie.
        sides: X and Y of all tiles, in the order of the mesh.

    Returns:
        Both lists.
    """
    (rows, columns), (row, column) = tiles.shape, tiles.place
    along_x = [sides[one * columns + column][0] for one in range(rows)]
    return along_x, [sides[row * columns + one][1] for one in range(columns)]


def place_of(tiles: Tiles, sides: Sequence[tuple[int, ...]]) -> Place:
    """Where this rank's tile lies; arguments as of `in_line`."""
    (x, y), (row, column) = in_line(tiles, sides), tiles.place
    return Place((sum(x), sum(y)), (sum(x[:row]), sum(y[:column])), (x[row], y[column]))


def pool_tiles(grid: Tensor, pooling: str, place: Place, mesh: DeviceMesh) -> Tensor:
    """Pool a grid from its tiles, on all ranks.

    Args:
        grid: this rank's tile of features [B,X,Y,D].
        pooling: as in `plstm_torch.models.pooling.pool_grid`; "to_image" and "features" leave each rank its tile.
        place: where it lies.
        mesh: of the tiles.

    Returns:
        As `pool_grid` returns of the whole.

    Raises:
        ValueError: unknown pooling.
    """
    x, y = place.whole
    if pooling in ("mean", "sum"):
        total = _sum(grid.to(accumulation_dtype(grid.dtype)).sum((1, 2)), mesh)
        return (total / (x * y) if pooling == "mean" else total).to(grid.dtype)
    nodes = {"corners": [(0, 0), (x - 1, 0), (0, y - 1), (x - 1, y - 1)], "center": [(x // 2, y // 2)]}
    if pooling not in nodes:
        return pool_grid(grid, pooling)
    return _sum(cat([_node(grid, node, place) for node in nodes[pooling]], 1), mesh)


def _node(grid: Tensor, node: tuple[int, int], place: Place) -> Tensor:
    """The features of a node of the whole grid [B,D], zero where it lies in another tile."""
    x, y = (one - start for one, start in zip(node, place.start, strict=True))
    if 0 <= x < place.size[0] and 0 <= y < place.size[1]:
        return grid[:, x, y]
    return attach(grid.new_zeros(grid.shape[0], grid.shape[3]), grid[:, :0])


def _sum(tensor: Tensor, mesh: DeviceMesh) -> Tensor:
    for axis in range(mesh.ndim):
        tensor = all_sum(tensor, mesh.get_group(axis))
    return tensor
