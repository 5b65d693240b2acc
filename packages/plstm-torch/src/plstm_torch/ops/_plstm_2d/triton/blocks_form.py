"""Launches the block step, antidiagonal by antidiagonal, as a form that composes with every transform of torch.

The backward pass needs the states that enter every block, a quarter of DK * DV numbers a node and orientation. Columns
of blocks make strips; the forward pass keeps what crosses from strip to strip, and the backward pass walks one strip
after the other again. A grid whose states fit the budget is one strip.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import FastForm, Tensors
from plstm_torch.ops._plstm_2d.block_chain import carry_states
from plstm_torch.ops._plstm_2d.block_maps import BorderMaps
from plstm_torch.ops._plstm_2d.problem import Flips
from plstm_torch.ops._triton import tuning

SIDE = 8  # nodes along a side of a block: the borders of a block are the 16 rows that the smallest product has
# Numbers in the states that enter the blocks of a strip; the backward pass holds them twice.
_STRIP = 1 << 28
_PASSING = 256  # numbers of every border state that go through a block at once


def tile_sizes(kernel: str, row: tuning.Row) -> dict[str, int]:
    """Compile-time sizes of the tiles of a kernel.

    Args:
        kernel: name in the table.
        row: its row.

    Returns:
        Arguments by name.
    """
    sizes = {"SIDE": SIDE, "BLOCK": row.block}
    if kernel == "grid_blocks_rows":
        return sizes
    keys = row.other or row.block
    return sizes | {"KEYS": keys, "CELLS": min(keys, max(1, _PASSING // row.block))}


def formula(*inputs: Tensor) -> Tensors:
    """What `forward` returns, by differentiable operations in the dtype of the states; arguments as of `forward`."""
    query, key, value, reading, writing, through, states = inputs
    nx, ny, ways = *reading.shape[2:4], reading.shape[1]
    q, k, v = (tensor.to(states.dtype).unsqueeze(-1) for tensor in (query, key, value))
    read_left, read_top = _by_node(reading)
    write_right, write_bottom = _by_node(writing)
    to_right, to_bottom = through.split(SIDE, 4)
    maps = BorderMaps(
        *(read_left, read_top, write_right, write_bottom), *to_right.split(SIDE, 5), *to_bottom.split(SIDE, 5)
    )
    flips: Flips = tuple((bool(o & 1), bool(o & 2)) for o in range(ways))
    entering = (states[:, :, : ny * SIDE, ..., None], states[:, :, ny * SIDE :, ..., None])
    grid = (nx, SIDE, ny, SIDE)
    carried, (right, bottom) = carry_states((q, k, v), maps, entering, grid, flips, separable=False)
    return carried.squeeze(-1), torch.cat([right, bottom], 2).squeeze(-1)


def _by_node(weights: Tensor) -> tuple[Tensor, Tensor]:
    """[*, 2*SIDE, N] as the two maps [*, N, 1, 1, SIDE]."""
    first, second = weights.mT[..., None, None, :].split(SIDE, -1)
    return first, second


def allocate(*inputs: Tensor) -> Tensors:
    """Empty tensors in the shapes of what `forward` returns."""
    states = inputs[6]
    return states.new_empty(inputs[2].shape), states.new_empty(states.shape), states.new_empty(_shape_of_kept(inputs))


def forward(*inputs: Tensor) -> tuple[Tensors, Tensors]:
    """What nodes read of the states that cross the borders of blocks, and the states that leave the grid.

    Args:
        inputs: of blocks of N = SIDE*SIDE nodes, query, key [B,NX,NY,N,DK], value [B,NX,NY,N,DV] of one dtype; in
            float32, or all in float64: M and S of `blocks.py` [B,O,NX,NY,2*SIDE,N] and T [B,O,NX,NY,2*SIDE,2*SIDE]; the
            states that enter the grid [B,O,Y+X,DK,DV].

    Returns:
        Output [B,NX,NY,N,DV] and last states [B,O,Y+X,DK,DV] in the dtype of the states; saved: the states that cross
        to each strip but the first, [B,strips-1,O,Y,DK,DV].
    """
    call = _Call(inputs, _number_of_strips(inputs))
    states = call.new_states(inputs[6])
    kept = states.new_empty(_shape_of_kept(inputs))
    slices = call.new_slices(inputs[2])
    with call.on_device():
        call.walk(states, 0, call.nx, output=slices, crossing=kept if kept.numel() else None)
    return (slices.sum(1), states), (kept,)


def gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    """The gradients of all inputs."""
    call = _Call(inputs, saved[0].shape[1] + 1)  # a batch that a transform has merged would have other strips
    (query, key, value), grad = call.vectors, cotangents[0].to(inputs[2].dtype).contiguous()
    states, d_states = call.new_states(inputs[6]), call.new_states(cotangents[1])
    of_query, of_key, of_value = (call.new_slices(tensor) for tensor in inputs[:3])
    d_reading, d_writing, d_through = (torch.empty_like(weights) for weights in call.maps)
    with call.on_device():
        for number, (low, high) in reversed(list(enumerate(call.strips))):
            if number:
                states[:, :, : call.rows] = saved[0][:, number - 1]
            else:
                states[:, :, : call.rows] = inputs[6][:, :, : call.rows]
            entering, d_leaving = call.new_entering(low, high), call.new_entering(low, high)
            call.walk(states, low, high, entering=entering)
            call.walk(d_states, low, high, output=of_value, entering=d_leaving, grad=grad)
            call.sum_rows((query, grad), call.maps[0], entering, (of_query, d_reading), low)
            call.sum_rows((key, value), call.maps[1], d_leaving, (of_key, d_writing), low)
            products = torch.matmul(d_leaving.flatten(5), entering.flatten(5).mT)
            call.in_image(d_through, products, low, high)
            del entering, d_leaving, products  # before those of the next strip are there
    vectors = zip((of_query, of_key, of_value), inputs[:3], strict=True)
    d_vectors = [slices.sum(1).to(tensor.dtype) for slices, tensor in vectors]
    return (*d_vectors, d_reading, d_writing, d_through, d_states)


def _number_of_strips(inputs: Tensors) -> int:
    """A function of sizes alone, so that a compiled program knows it."""
    through, states = inputs[5], inputs[6]
    column = states.shape[0] * states.shape[1] * through.shape[3] * 2 * SIDE * states.shape[3] * states.shape[4]
    return -(-through.shape[2] // max(1, _STRIP // column))


def _shape_of_kept(inputs: Tensors) -> tuple[int, ...]:
    batch, ways, _, dim_k, dim_v = inputs[6].shape
    return batch, _number_of_strips(inputs) - 1, ways, inputs[5].shape[3] * SIDE, dim_k, dim_v


class _Call:
    """What every launch of one pass is given."""

    def __init__(self, inputs: Tensors, strips: int) -> None:
        self.vectors = [vectors.contiguous() for vectors in inputs[:3]]
        self.maps = [weights.contiguous() for weights in inputs[3:6]]
        self.dtype = inputs[0].dtype
        self.batch, self.ways, self.nx, self.ny = inputs[5].shape[:4]
        self.rows = self.ny * SIDE
        self.channels = inputs[6].shape[3:]
        self.period = -(-self.nx // strips)
        self.strips = [(low, min(low + self.period, self.nx)) for low in range(0, self.nx, self.period)]

    def on_device(self) -> Any:
        """The context in which kernels go to the device of the tensors."""
        return torch.cuda.device_of(self.maps[0])

    def new_states(self, states: Tensor) -> Tensor:
        """States that a walk may overwrite; the zeros of a cotangent that nobody asked for have any dtype."""
        return states.to(self.maps[0].dtype, copy=True, memory_format=torch.contiguous_format)

    def new_slices(self, vectors: Tensor) -> Tensor:
        """Uninitialised vectors of each orientation [B,O,NX,NY,N,D] in the dtype of the states."""
        return self.maps[0].new_empty(self.batch, self.ways, *vectors.shape[1:])

    def new_entering(self, low: int, high: int) -> Tensor:
        """Uninitialised states of the borders of all blocks of a strip, [B,O,columns,NY,2*SIDE,DK,DV]."""
        return self.maps[0].new_empty(self.batch, self.ways, high - low, self.ny, 2 * SIDE, *self.channels)

    def walk(
        self,
        states: Tensor,
        low: int,
        high: int,
        *,
        output: Tensor | None = None,
        entering: Tensor | None = None,
        crossing: Tensor | None = None,
        grad: Tensor | None = None,
    ) -> None:
        """Walk columns [low, high) of every orientation's walk.

        Args:
            states: what enters these columns, replaced by what leaves them.
            low: first column.
            high: the one behind the last.
            output: takes what nodes read.
            entering: takes the states that enter the blocks.
            crossing: takes those that enter each strip but the first; only one of the two.
            grad: gradient of the output; with it, the walk is the adjoint one, from the far end.
        """
        from plstm_torch.ops._plstm_2d.triton import blocks

        query, key, value = self.vectors
        reading, writing, through = self.maps
        if grad is not None:
            query, key, value, reading, writing = key, query, grad, writing, reading
        options = self.options("grid_blocks_step")
        tiles = -(-self.channels[1] // options["BLOCK"])
        options |= {"BACK": grad is not None, "READ": output is not None}
        entering = crossing if entering is None else entering
        options |= {"KEEP": entering is not None, "CROSSING": crossing is not None}
        options |= self.numbers("ACC", "OPERAND", "VALUES", "STATES", "SPLIT")
        tensors = (states if output is None else output, states if entering is None else entering)
        count = high - low
        for diagonal in range(count + self.ny - 1):
            first = max(0, diagonal - self.ny + 1)
            width = min(count - 1, diagonal) - first + 1
            blocks.block_step[self.batch * width, self.ways * tiles](
                query, key, value, reading, writing, through, states, *tensors, self.nx, self.ny,
                *self.channels, low, count, self.period, diagonal, first, width, **options,
            )  # fmt: skip

    def sum_rows(
        self,
        vectors: tuple[Tensor, Tensor],
        weights: Tensor,
        entering: Tensor,
        results: tuple[Tensor, Tensor],
        low: int,
    ) -> None:
        """Gradients of the first of two vectors, and of the weights of what it reads or writes, in a strip."""
        from plstm_torch.ops._plstm_2d.triton import blocks

        count = entering.shape[2]
        blocks.block_rows[self.batch * count * self.ny, self.ways](
            *vectors, weights, entering, *results, self.nx, self.ny, *self.channels, low, count,
            **self.options("grid_blocks_rows"), **self.numbers("ACC", "OPERAND", "VALUES"),
        )  # fmt: skip

    def in_image(self, result: Tensor, strip: Tensor, low: int, high: int) -> None:
        """Copies maps of the blocks of a strip, in the order of the walks, to their places in the image."""
        for o in range(self.ways):
            columns = slice(self.nx - high, self.nx - low) if o & 1 else slice(low, high)
            flipped = [axis for axis, flip in ((1, o & 1), (2, o & 2)) if flip]
            result[:, o, columns] = strip[:, o].flip(flipped)

    def options(self, kernel: str) -> dict[str, Any]:
        """Sizes of the tiles, warps and stages of a kernel."""
        row = tuning.choose(kernel, self.dtype, self.maps[0].device)
        return {"WAYS": self.ways, **tile_sizes(kernel, row), **row.options}

    def numbers(self, *names: str) -> dict[str, Any]:
        """The dtypes and precisions that a kernel asks for."""
        from plstm_torch.ops._triton.precision import numbers

        known = numbers(self.dtype)
        return {name: known[name] for name in names}


block_kernels = FastForm("grid_blocks_triton", formula, forward, gradients, allocate, num_outputs=2)
