"""What every kernel of one call is given, and the sizes of its tiles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import Tensors
from plstm_torch.ops._plstm_2d.problem import Flips, Gates, Problem
from plstm_torch.ops._plstm_2d.recurrent import recurrent
from plstm_torch.ops._triton import tuning

# Numbers in the states of all nodes, which the gradients of the walk need at once.
_STATES = 1 << 24


class GridCall:
    """One launch of a form: query, key and value where they lie, gates (a DK-th of them) laid out anew."""

    def __init__(self, inputs: Tensors) -> None:
        self.vectors = inputs[:3]
        self.gates = [gate.contiguous() for gate in inputs[3:]]
        self.dtype = inputs[0].dtype
        self.batch, self.x, self.y, dim_k = inputs[0].shape
        self.ways = self.gates[0].shape[1]
        self.channels = (dim_k, inputs[2].shape[3])
        self.sizes = (self.x, self.y, *self.channels)
        self.strides = [stride for tensor in self.vectors for stride in tensor.stride()]

    def on_device(self) -> Any:
        """The context in which kernels go to the device of the tensors."""
        return torch.cuda.device_of(self.gates[0])

    def launch(self, kernel: str) -> dict[str, Any]:
        """Sizes of the tiles, their number, warps and stages of a kernel."""
        row = tuning.choose(kernel, self.dtype, self.gates[0].device)
        sizes = tile_sizes(kernel, row, self.x, self.y)
        tiles = number_of_tiles(kernel, sizes, self.x, self.y)
        sizes["HELD"] = max(self.channels) <= row.block
        return {"WAYS": self.ways, "tiles": tiles, **sizes, **row.options}

    def options(self, kernel: str, side: int) -> dict[str, int]:
        """Warps and stages of a kernel over whole lines of a padded side."""
        return line_row(tuning.choose(kernel, self.dtype, self.gates[0].device), side).options

    def grid(self, launch: dict[str, Any], channels: int) -> tuple[int, int]:
        """Programs for tiles of the whole batch, and blocks of channels; only the first axis may be long."""
        return self.batch * launch["tiles"], -(-channels // launch["BLOCK"])

    def numbers(self, *names: str) -> dict[str, Any]:
        """The dtypes and precisions that a kernel asks for."""
        from plstm_torch.ops._triton.precision import numbers

        known = numbers(self.dtype)
        return {name: known[name] for name in names}


def padded(side: int) -> int:
    """Nodes of a line in kernels: a power of two that products take."""
    return max(16, 1 << (side - 1).bit_length())


def line_row(row: tuning.Row, side: int) -> tuning.Row:
    """The row of a kernel that holds a square of a padded side, from that of the largest one: fewer warps."""
    return replace(row, warps=max(1, row.warps * side // row.tile))


def tile_sizes(kernel: str, row: tuning.Row, x: int, y: int) -> dict[str, int]:
    """Sides of the tiles of a kernel for a grid.

    Args:
        kernel: name in the table.
        row: its row.
        x: X.
        y: Y.

    Returns:
        Compile-time arguments by name: sides of the padded grid, of the tiles, and the block of channels.
    """
    xp, yp = padded(x), padded(y)
    if kernel.startswith("grid_directed"):
        return {"YP": yp, "XB": max(1, row.tile // yp), "BLOCK": row.block}
    other = row.other or row.tile
    targets, sources = (other, row.tile) if kernel.endswith("sources") else (row.tile, other)
    return {"XP": xp, "YP": yp, "YB": max(1, targets // xp), "UB": max(1, sources // yp), "BLOCK": row.block}


def number_of_tiles(kernel: str, sizes: dict[str, int], x: int, y: int) -> int:
    """Tiles of a grid, for sizes as `tile_sizes` gives them."""
    if kernel.startswith("grid_directed"):
        return -(-x // sizes["XB"])
    return -(-x // sizes["UB"]) if kernel.endswith("sources") else -(-y // sizes["YB"])


def problem_of(inputs: Tensors, names: tuple[str, ...]) -> Problem:
    """The call that the inputs of a form stand for, in the dtype of the gates.

    Args:
        inputs: query, key, value [B,X,Y,D], gates [B,O,X,Y], direct [B,X,Y].
        names: names of the gates.

    Returns:
        The problem, without states.
    """
    query, key, value = (tensor.to(inputs[-1].dtype).unsqueeze(-1) for tensor in inputs[:3])
    gates: dict[str, Tensor | None] = {"transition_dl": None, "transition_ru": None, "mark_u": None}
    for name, gate in zip(names, inputs[3:-1], strict=True):
        gates[name] = gate.view(*gate.shape, *(1,) * (2 if name.startswith("transition") else 3))
    flips: Flips = tuple((bool(o & 1), bool(o & 2)) for o in range(inputs[3].shape[1]))
    direct = inputs[-1].view(*inputs[-1].shape, 1, 1, 1, 1)
    return Problem(query, key, value, Gates(**gates), direct, flips, None, False)  # type: ignore[arg-type]


def walk(inputs: Tensors, names: tuple[str, ...]) -> Tensors:
    """The output of a form node by node: what a node does not depend on is not multiplied with it."""
    return (recurrent(problem_of(inputs, names))[0].squeeze(-1).to(inputs[2].dtype),)


def rows_of_walk(*inputs: Tensor) -> int:
    """Rows of the batch that are walked at once."""
    query, value = inputs[0], inputs[2]
    return max(1, _STATES // (query[0].numel() * value.shape[3]))


def allocate(*inputs: Tensor) -> Tensors:
    """An empty output [B,X,Y,DV]."""
    return (inputs[2].new_empty(inputs[2].shape),)


def masked_attention(inputs: Tensors, gating: Tensor) -> Tensors:
    """The output through a mask [B,X,Y,X,Y], by differentiable operations in the dtype of the gates."""
    query, key, value = (tensor.flatten(1, 2).to(gating.dtype) for tensor in inputs[:3])
    output = ((query @ key.mT) * gating.flatten(3, 4).flatten(1, 2)) @ value
    return (output.to(inputs[2].dtype).unflatten(1, inputs[0].shape[1:3]),)
