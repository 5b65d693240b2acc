"""Layers that work on their rank's piece, inside blocks and models that know nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from plstm_config.options import check_cu_seqlens_shape, check_implementation
from plstm_config.shapes import PLSTM_1D
from plstm_torch.context import Cache, Context
from plstm_torch.layers.convolution import Convolution1DLayer
from plstm_torch.layers.plstm_1d import SequenceOperations, pLSTM1DLayer
from plstm_torch.layers.plstm_2d import GridOperations
from plstm_torch.ops._plstm_2d.problem import FOUR_ORIENTATIONS
from plstm_torch.parallel.agreement import Checked, agree
from plstm_torch.parallel.convolution import convolve_piece, convolve_tile
from plstm_torch.parallel.images import Place, in_line, place_of, pool_tiles
from plstm_torch.parallel.pieces import Pieces
from plstm_torch.parallel.plstm_1d import find_pieces, run_piece
from plstm_torch.parallel.plstm_2d import FOR_ANY_CALL, check_sides
from plstm_torch.parallel.walks import Way, oriented_ways, run_walks
from plstm_torch.parallel.wavefront import Tiles


@dataclass(frozen=True)
class SequenceSpread:
    """How a layer's sequences are spread over ranks.

    Attributes:
        mesh: of one dimension.
        agree: whether the ranks compare what they are called with.
    """

    mesh: DeviceMesh
    agree: bool

    def __deepcopy__(self, memo: dict[int, Any]) -> SequenceSpread:
        """A copy of a layer computes with the same ranks: process groups cannot be copied."""
        return self

    def run(self, layer: pLSTM1DLayer, x: Tensor, context: Context) -> tuple[Tensor, Cache]:
        """Run a layer on this rank's piece; cache and borders are those of the whole, see `pLSTM1DLayer.forward`."""
        cu_seqlens = context.cu_seqlens

        def check() -> Checked:
            if cu_seqlens is not None:
                check_cu_seqlens_shape(torch.as_tensor(cu_seqlens))
            layer.check_sequence(x, context)
            facts = {
                "batch size of x": x.shape[0],
                "dtype of x": x.dtype,
                "requires_grad of x": torch.is_grad_enabled() and x.requires_grad,
                "cu_seqlens": None if cu_seqlens is None else torch.as_tensor(cu_seqlens).tolist(),
                "cache": context.cache is not None,
                "return_cache": context.return_cache,
            }
            return facts, (x.shape[1],)

        pieces = find_pieces(self.mesh, check, cu_seqlens, self.agree)
        operations = SequenceOperations(
            convolve=partial(self._convolve, pieces=pieces),
            plstm_1d=partial(self._plstm_1d, pieces=pieces, with_last=context.return_cache),
        )
        return layer.run_sequence(x, context, operations)

    def _convolve(
        self, conv: Convolution1DLayer, x: Tensor, window: Tensor | None, cu_seqlens: Tensor | None, *, pieces: Pieces
    ) -> tuple[Tensor, Tensor | None]:
        windows = None if window is None else window.unflatten(0, (x.shape[0], pieces.count))
        output, after = convolve_piece(conv, x, windows, pieces, self.mesh.get_group())
        return output, None if after is None else after.flatten(0, 1)

    def _plstm_1d(
        self,
        *,
        pieces: Pieces,
        with_last: bool,
        initial_state: Tensor | None,
        cu_seqlens: Tensor | None,
        return_last_state: bool,
        implementation: str,
        **tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The op with the states of the whole; where nobody wants the last ones, zeros that take no memory."""
        states = initial_state if initial_state is None or cu_seqlens is not None else initial_state.unsqueeze(1)
        options: dict[str, Any] = {"implementation": implementation}
        ordered = tuple(tensors[name] for name in PLSTM_1D)
        output, last = run_piece(ordered, states, pieces, self.mesh.get_group(), options, with_last=with_last)
        if last is None:
            key, value, transition = tensors["key"], tensors["value"], tensors["transition"]
            shape = (key.shape[0], pieces.count, key.shape[2], value.shape[2], transition.shape[-1])
            last = output.new_zeros(()).expand(shape)
        return output, last if cu_seqlens is not None else last.squeeze(1)


@dataclass(frozen=True)
class TileSpread:
    """How a layer's grids are spread over ranks.

    Attributes:
        mesh: of one dimension, which cuts X, or of two, of which the second one cuts Y.
        agree: whether the ranks compare what they are called with.
        parts: number of parts that the batch of all heads is cut into, see `plstm_torch.parallel.plstm_2d`.
    """

    mesh: DeviceMesh
    agree: bool
    parts: int

    def __deepcopy__(self, memo: dict[int, Any]) -> TileSpread:
        """A copy of a layer computes with the same ranks: process groups cannot be copied."""
        return self

    def _sides(self, x: Tensor, check_own: Callable[[], None] = lambda: None) -> list[tuple[int, ...]]:
        """X and Y of all tiles of a grid, once the ranks agree; each first runs `check_own`."""

        def check() -> Checked:
            check_own()
            facts = {
                "batch size of x": x.shape[0],
                "dtype of x": x.dtype,
                "requires_grad of x": torch.is_grad_enabled() and x.requires_grad,
            }
            return facts, (x.shape[1], x.shape[2])

        if not self.agree:
            return [check()[1]] * self.mesh.size()
        sides = agree(self.mesh, check, 2)
        check_sides(sides, Tiles(self.mesh).shape)
        return sides

    def _place(self, x: Tensor) -> Place:
        return place_of(Tiles(self.mesh), self._sides(x))

    def whole_grid(self, x: Tensor) -> tuple[int, int]:
        """See `GridOfTiles`."""
        return self._place(x).whole

    def tile(self, whole: Tensor, x: Tensor) -> Tensor:
        """See `GridOfTiles`."""
        return self._place(x).cut(whole)

    def pool(self, grid: Tensor, pooling: str) -> Tensor:
        """See `PoolOfTiles`."""
        return pool_tiles(grid, pooling, self._place(grid), self.mesh)

    def operations(self, layer: Any, x: Tensor) -> GridOperations:
        """Check a layer's tile on all ranks, and say what it runs; see `GridSpread`."""

        def check() -> None:
            layer.check_grid(x)
            check_implementation(layer.config.implementation, FOR_ANY_CALL)

        all_sides, tiles = self._sides(x, check), Tiles(self.mesh)
        sides = in_line(tiles, all_sides)
        return GridOperations(
            convolve=partial(convolve_tile, tiles=tiles, sides=sides),
            plstm_2d_oriented=partial(self._oriented, tiles),
            plstm_2d=partial(self._one_by_one, tiles),
        )

    def _oriented(self, tiles: Tiles, *, implementation: str, mode: str | None = None, **tensors: Tensor) -> Tensor:
        inputs = {name: tensors.pop(name) for name in ("query", "key", "value", "direct")}
        options = {"implementation": implementation, "mode": mode}
        results = run_walks(oriented_ways(inputs, tensors), tiles, None, self.parts, options)
        return torch.stack([output for output, _ in results]).sum(0).to(inputs["value"].dtype)

    def _one_by_one(
        self,
        tiles: Tiles,
        orientations: Sequence[int],
        *,
        implementation: str,
        mode: str | None = None,
        **tensors: Tensor,
    ) -> Tensor:
        ways = []
        for index, orientation in enumerate(orientations):
            own = {name: tensor[index :: len(orientations)] for name, tensor in tensors.items()}
            ways.append(Way(own, FOUR_ORIENTATIONS[orientation], turned=False))
        options = {"implementation": implementation, "mode": mode}
        results = run_walks(ways, tiles, None, self.parts, options)
        return torch.stack([output for output, _ in results], 1).flatten(0, 1).to(tensors["value"].dtype)
