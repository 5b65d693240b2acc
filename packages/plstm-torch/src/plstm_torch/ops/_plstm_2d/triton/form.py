"""Launches the kernels, as forms that compose with every transform of torch; and says which calls they take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import CarefulForm, FastForm, Tensors
from plstm_torch.ops._plstm_2d.problem import Flips, Gates, Problem, exchange_axes
from plstm_torch.ops._plstm_2d.recurrent import recurrent
from plstm_torch.ops._plstm_2d.triton.tables import gate_gradients, gating_matrix
from plstm_torch.ops._triton import support, tuning

SIDES = 64
# Numbers in the states of all nodes, which the gradients of the walk need at once.
_STATES = 1 << 24


def without_kernels(tensors: Mapping[str, Tensor], mode: str, with_states: bool) -> str | None:
    """Why the kernels cannot take a call, None if they can.

    Args:
        tensors: the arguments by name; sizes are read off query, value, source_r, mark_l.
        mode: mode of the gates.
        with_states: whether states enter or leave.
    """
    query, value, source, mark = (tensors[name] for name in ("query", "value", "source_r", "mark_l"))
    names = ("JT", "JK", "JV", "JO", "JQ")
    sizes = dict(zip(names, (*source.shape[-3:], *mark.shape[-3:-1]), strict=True))
    sizes |= {"X": query.shape[1], "Y": query.shape[2], "DK": query.shape[3], "DV": value.shape[3]}
    if with_states:
        return "the 2D ops have no kernels for initial and last states"
    turns = tensors.keys() & {"transition_ru", "transition_dl"}
    if mode in ("general", "P") or not turns:
        return f"the 2D ops have kernels for D-mode with one turning transition, got gates of mode {mode}"
    dtypes = [tensor.dtype for tensor in tensors.values()]
    return support.unsupported("the 2D op", query.device, dtypes, sizes, SIDES)


def plstm_2d_triton(problem: Problem) -> Tensor:
    """Output [B,X,Y,DV,1] by kernels.

    Args:
        problem: no node is missing; query, key and value have one dtype, gates float32 or everything float64; marks and
            direct are scaled, the query is not.
    """
    if problem.gates.mode == "R":
        return plstm_2d_triton(exchange_axes(problem)).transpose(1, 2)
    gates = problem.gates
    chosen = (gates.source_r, gates.source_d, gates.transition_rl, gates.transition_du)
    chosen += (gates.transition_ru, gates.mark_l, gates.mark_u)  # type: ignore[assignment]
    scalars = [gate.flatten(4).squeeze(-1) for gate in chosen]
    vectors = [tensor.squeeze(-1) for tensor in (problem.query, problem.key, problem.value)]
    (output,) = separable_kernels(*vectors, *scalars, problem.direct.flatten(3).squeeze(-1))
    return output.unsqueeze(-1)


def _problem(inputs: Tensors) -> Problem:
    """The call that the inputs of a form stand for, in the dtype of the gates."""
    vectors = [tensor.to(inputs[-1].dtype).unsqueeze(-1) for tensor in inputs[:3]]
    axes = (3, 3, 2, 2, 2, 3, 3)
    gates = [gate.view(*gate.shape, *(1,) * count) for gate, count in zip(inputs[3:10], axes, strict=True)]
    source_r, source_d, across, down, turn, mark_l, mark_u = gates
    flips: Flips = tuple((bool(o & 1), bool(o & 2)) for o in range(source_r.shape[1]))
    return Problem(
        query=vectors[0],
        key=vectors[1],
        value=vectors[2],
        gates=Gates(source_r, source_d, across, down, None, turn, mark_l, mark_u),
        direct=inputs[10].view(*inputs[10].shape, 1, 1, 1, 1),
        flips=flips,
        initial_state=None,
        return_last_state=False,
    )


def formula(*inputs: Tensor) -> Tensors:
    """Output by differentiable operations; arguments as of `forward`."""
    query, key, value = (tensor.flatten(1, 2).to(inputs[-1].dtype) for tensor in inputs[:3])
    gating = gating_matrix(inputs[3:10], inputs[10]).flatten(3, 4).flatten(1, 2)
    output = ((query @ key.mT) * gating) @ value
    return (output.to(inputs[2].dtype).unflatten(1, inputs[0].shape[1:3]),)


def careful(*inputs: Tensor) -> Tensors:
    """Output node by node: what a node does not depend on is not multiplied with it."""
    return (recurrent(_problem(inputs))[0].squeeze(-1).to(inputs[2].dtype),)


def careful_rows(*inputs: Tensor) -> int:
    """Rows of the batch that are walked at once."""
    query, value = inputs[0], inputs[2]
    return max(1, _STATES // (query[0].numel() * value.shape[3]))


def allocate(*inputs: Tensor) -> Tensors:
    """An empty output."""
    return (inputs[2].new_empty(inputs[2].shape),)


def forward(*inputs: Tensor) -> tuple[Tensors, Tensors]:
    """Output [B,X,Y,DV]; nothing is saved.

    Args:
        inputs: query, key [B,X,Y,DK], value [B,X,Y,DV] of one dtype; source_r, source_d, transition_rl, transition_du,
            transition_ru, mark_l, mark_u [B,O,X,Y] and direct [B,X,Y] in float32, or all in float64.
    """
    from plstm_torch.ops._plstm_2d.triton import separable

    call, (output,) = _Call(inputs), allocate(*inputs)
    launch = call.launch("grid_separable_output")
    with call.on_device():
        separable.separable_output[call.grid(launch, "YB", "Y", call.channels[1])](
            *call.vectors, *call.gates, output, *call.strides, *call.sizes, **launch, **call.numbers(), **call.split
        )
    return (output,), ()


def gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    """The gradients of all inputs."""
    from plstm_torch.ops._plstm_2d.triton import separable

    call, grad = _Call(inputs), cotangents[0]
    vectors = tuple(tensor.new_empty(tensor.shape) for tensor in inputs[:3])
    gates = call.gates[0]
    batch, orientations, x, y = gates.shape
    tables = (
        gates.new_empty(batch, orientations, y, x, x),
        gates.new_empty(batch, orientations, x, y, y),
        gates.new_empty(batch, x, y, y),
    )
    arguments = (*call.vectors, grad, *call.gates)
    strides = (*call.strides, *grad.stride())
    with call.on_device():
        launch = call.launch("grid_separable_targets")
        separable.separable_targets[call.grid(launch, "YB", "Y", call.channels[0])](
            *arguments, vectors[0], *tables, *strides, *call.sizes, **launch, **call.numbers()
        )
        launch = call.launch("grid_separable_sources")
        separable.separable_sources[call.grid(launch, "UB", "X", max(call.channels))](
            *arguments, *vectors[1:], *strides, *call.sizes, **launch, **call.numbers()
        )
        return (*vectors, *gate_gradients(tuple(call.gates[:7]), *tables))


class _Call:
    """What every kernel of one call is given."""

    def __init__(self, inputs: Tensors) -> None:
        self.vectors = inputs[:3]
        self.gates = [gate.contiguous() for gate in inputs[3:]]
        self.dtype = inputs[0].dtype
        self.batch, self.x, self.y, dim_k = inputs[0].shape
        self.channels = (dim_k, inputs[2].shape[3])
        self.sizes = (self.x, self.y, *self.channels)
        self.strides = [stride for tensor in self.vectors for stride in tensor.stride()]

    def on_device(self) -> Any:
        """The context in which kernels go to the device of the tensors."""
        return torch.cuda.device_of(self.gates[0])

    def launch(self, kernel: str) -> dict[str, Any]:
        """Sizes of the tiles, warps and stages: a tile of targets has rows of all x, one of sources columns."""
        row = tuning.choose(kernel, self.dtype, self.gates[0].device)
        sizes = tile_sizes(kernel, row, self.x, self.y)
        return {"WAYS": self.gates[0].shape[1], **sizes, **row.options}

    def grid(self, launch: dict[str, Any], step: str, side: str, channels: int) -> tuple[int, int]:
        """Programs for tiles of the whole batch, and blocks of channels; adds the number of tiles to `launch`."""
        tiles = -(-{"X": self.x, "Y": self.y}[side] // launch[step])
        launch["tiles"] = tiles
        return self.batch * tiles, -(-channels // launch["BLOCK"])

    def numbers(self) -> dict[str, Any]:
        """Dtypes and precisions of the kernels."""
        from plstm_torch.ops._triton.precision import numbers

        known = numbers(self.dtype)
        return {name: known[name] for name in ("ACC", "OPERAND", "VALUES")}

    @property
    def split(self) -> dict[str, bool]:
        """Whether wide operands are split, for the kernel that has such."""
        from plstm_torch.ops._triton.precision import numbers

        return {"SPLIT": numbers(self.dtype)["SPLIT"]}


def tile_sizes(kernel: str, row: tuning.Row, x: int, y: int) -> dict[str, int]:
    """Sides of the tiles of a kernel for a grid.

    Args:
        kernel: name in the table.
        row: its row.
        x: X.
        y: Y.
    """
    xp, yp = (max(16, 1 << (side - 1).bit_length()) for side in (x, y))
    other = row.other or row.tile
    targets, sources = (other, row.tile) if kernel.endswith("sources") else (row.tile, other)
    return {"XP": xp, "YP": yp, "YB": max(1, targets // xp), "UB": max(1, sources // yp), "BLOCK": row.block}


separable_kernels = FastForm(
    "grid_separable_triton", formula, forward, gradients, allocate, 1, CarefulForm(careful, careful_rows)
)
