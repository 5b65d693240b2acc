"""Launches the kernels, as a form of the same kind as those in torch beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import CarefulForm, Tensors
from plstm_torch.ops._plstm_graph.levels import LevelForm, edge_factors
from plstm_torch.ops._triton import tuning

if TYPE_CHECKING:
    from plstm_torch.ops._plstm_graph.plan import LevelSchedule

STATES = 8  # largest JT: every line edge reads JT states for each of JT
# A launch takes about as long as so many steps of a walk: an estimate.
_STEPS_OF_A_LAUNCH = 4
_SMALLEST_BLOCK = 16


class KernelForm:
    """What nodes read from edges, and the states of edges, by kernels; see `FastForm`.

    The inputs of every function, in one dtype, edges and line edges in the order of the schedule:

        query: [H,N,DK,JQ].
        key: [H,N,DK,JK].
        value: [H,N,DV,JV].
        source: [H,E,JT,JK,JV].
        transition: [H,L,JT,JT].
        mark: [H,E,JO,JQ,JT].
        initial_state: [H,E,JT,DK,DV], or left out.

    The outputs: what is read [H,N,DV,JO] and, if asked for, the states [H,E,JT,DK,DV].
    """

    careful: CarefulForm | None = None  # a state only meets what it depends on

    def __init__(self, schedule: LevelSchedule, return_states: bool) -> None:
        self.num_outputs = 2 if return_states else 1
        self.formula: Callable[..., Tensors] = partial(levels_formula, schedule, return_states)
        self.forward: Callable[..., tuple[Tensors, Tensors]] = partial(_forward, schedule, return_states)
        self.gradients: Callable[[Tensors, Tensors, Tensors], Tensors] = partial(_gradients, schedule)


def allocate(return_states: bool, inputs: Tensors) -> tuple[list[Tensor], list[Tensor]]:
    """Empty outputs, and the empty states that are saved."""
    _, key, value, source, _, mark = inputs[:6]
    read = value.new_empty(*value.shape[:3], mark.shape[2])
    states = [source.new_empty(_state_shape(key, value, source)) for _ in range(2)]
    return [read, *states[: int(return_states)]], states[1:]


def walks(schedule: LevelSchedule, dim_t: int) -> bool:
    """Whether walks through whole graphs take less time than a launch for every level."""
    return schedule.max_edges * dim_t <= _STEPS_OF_A_LAUNCH * (len(schedule.levels) - 1)


def levels_formula(schedule: LevelSchedule, return_states: bool, *inputs: Tensor) -> Tensors:
    """What the kernels compute, in differentiable operations level by level."""
    value, mark = inputs[2], inputs[5]
    form = LevelForm(schedule, return_states)
    read, *states = form.formula(*edge_factors(schedule, *inputs[:6]), *inputs[6:])
    nothing = value.new_zeros(*value.shape[:3], mark.shape[2])
    return (nothing.index_add(1, schedule.head, read.mT), *states)


def _forward(schedule: LevelSchedule, return_states: bool, *inputs: Tensor) -> tuple[Tensors, Tensors]:
    call = _Call(schedule, inputs)
    with call.on_device():
        states = call.states()
        read = call.sums(call.query, call.mark, states, call.into_nodes)
    return ((read.mT, states.clone()) if return_states else (read.mT,)), (states,)


def _gradients(schedule: LevelSchedule, inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    call, states = _Call(schedule, inputs), saved[0].contiguous()
    grad = _entries_first(cotangents[0])
    d_states = cotangents[1].contiguous() if len(cotangents) > 1 else None
    with call.on_device():
        adjoint, d_transition = call.adjoint(grad, states, d_states)
        d_query, d_mark = call.gradients(call.query, grad, call.mark, states, call.into_nodes)
        d_key, d_source = call.gradients(call.key, call.value, call.source, adjoint, call.out_of_nodes)
        d_value = call.sums(call.key, call.source, adjoint, call.out_of_nodes)
    of_vectors = d_query.mT, d_key.mT, d_value.mT
    return (*of_vectors, d_source, d_transition, d_mark, *([adjoint] if len(inputs) > 6 else []))


class _Side(NamedTuple):
    """The edges at all nodes on one side: those that end there, or those that start there.

    Attributes:
        groups: first of the edges of each node, and the edges by node.
        entries: J dimensions and the steps between the gates of an edge, as `nodes.py` has them.
    """

    groups: Tensors
    entries: dict[str, int]


class _Call:
    """What the kernels of one pass are given."""

    def __init__(self, schedule: LevelSchedule, inputs: Tensors) -> None:
        self.schedule, self.indices = schedule, schedule.kernels
        self.query, self.key, self.value = (_entries_first(tensor) for tensor in inputs[:3])
        self.source, self.transition, self.mark, *initial = (tensor.contiguous() for tensor in inputs[3:])
        self.initial = initial[0] if initial else None
        self.state_shape = _state_shape(*inputs[1:4])
        self.heads, self.num_edges, self.dim_t, self.dim_k, self.dim_v = self.state_shape
        self.num_nodes = inputs[0].shape[1]
        (jk, jv), (jo, jq), jt = self.source.shape[3:], self.mark.shape[2:4], self.dim_t
        read = {"JA": jq, "JB": jo, "JT": jt, "GA": jt, "GB": jq * jt, "GT": 1}
        written = {"JA": jk, "JB": jv, "JT": jt, "GA": jv, "GB": 1, "GT": jk * jv}
        self.into_nodes = _Side((self.indices.head_ptr, self.indices.by_head), read)
        self.out_of_nodes = _Side((self.indices.tail_ptr, self.indices.by_tail), written)

    def on_device(self) -> Any:
        """The context in which kernels go to the device of the tensors."""
        return torch.cuda.device_of(self.source)

    def states(self) -> Tensor:
        """The states of all edges [H,E,JT,DK,DV]."""
        from plstm_torch.ops._plstm_graph.triton import states as kernels

        schedule, states = self.schedule, self.source.new_empty(self.state_shape)
        given = states if self.initial is None else self.initial
        indices = schedule.tail, self.indices.lines_into, schedule.incoming
        arguments = (self.key, self.value, self.source, self.transition, given, *indices, states)
        entries = {"JK": self.source.shape[3], "JV": self.source.shape[4], "INITIAL": self.initial is not None}
        self._pass(kernels.level_forward, kernels.walk_forward, arguments, entries, backward=False)
        return states

    def adjoint(self, grad: Tensor, states: Tensor, d_states: Tensor | None) -> tuple[Tensor, Tensor]:
        """The adjoints of all states, and the gradient of the transitions.

        Args:
            grad: gradient of the output [H,N,JO,DV].
            states: [H,E,JT,DK,DV].
            d_states: gradient of the states, None if they were not asked for.

        Returns:
            [H,E,JT,DK,DV], and [H,L,JT,JT].
        """
        from plstm_torch.ops._plstm_graph.triton import states as kernels

        schedule, adjoint = self.schedule, torch.empty_like(states)
        tiles = self._tiles(self._options("graph_states"))
        d_transition = self.transition.new_empty(tiles, *self.transition.shape)
        given = adjoint if d_states is None else d_states
        indices = schedule.head, self.indices.lines_out_of, schedule.by_incoming, schedule.outgoing
        arguments = (self.query, grad, self.mark, self.transition, given, states, *indices, adjoint, d_transition)
        entries = {"JQ": self.mark.shape[3], "JO": self.mark.shape[2], "GIVEN": d_states is not None}
        self._pass(kernels.level_backward, kernels.walk_backward, arguments, entries, backward=True)
        return adjoint, d_transition.sum(0)

    def sums(self, rows: Tensor, gate: Tensor, states: Tensor, side: _Side) -> Tensor:
        """`nodes.sums` over all edges of a side."""
        from plstm_torch.ops._plstm_graph.triton import nodes

        options, entries = self._options("graph_sums"), side.entries
        results = rows.new_empty(*rows.shape[:2], entries["JB"], self.dim_v)
        grid = self.heads * self.num_nodes * entries["JB"], -(-self.dim_v // options["BV"])
        sizes = self.num_nodes, self.num_edges, self.dim_k, self.dim_v
        _launch(nodes.sums, grid, rows, gate, states, *side.groups, results, *sizes, **entries, **options)
        return results

    def gradients(
        self, rows: Tensor, columns: Tensor, gate: Tensor, states: Tensor, side: _Side
    ) -> tuple[Tensor, Tensor]:
        """`nodes.gradients`, those of `rows` and of `gate`, over all edges of a side."""
        from plstm_torch.ops._plstm_graph.triton import nodes

        options, d_rows = self._options("graph_gradients"), torch.empty_like(rows)
        blocks = -(-self.dim_k // options["BK"])
        d_gate = gate.new_empty(blocks, *gate.shape)
        grid = self.heads * self.num_nodes * side.entries["JA"], blocks
        sizes = self.heads, self.num_nodes, self.num_edges, self.dim_k, self.dim_v
        arguments = rows, columns, gate, states, *side.groups, d_rows, d_gate
        _launch(nodes.gradients, grid, *arguments, *sizes, **side.entries, **options)
        return d_rows, d_gate.sum(0)

    def _pass(
        self, level: Any, walk: Any, arguments: tuple[Any, ...], entries: dict[str, Any], *, backward: bool
    ) -> None:
        """All edges, by one launch for each level or by one for all walks."""
        options = {"JT": self.dim_t, **entries, **self._options("graph_states")}
        tiles, levels = self._tiles(options), self.schedule.levels
        sizes = (self.heads, self.num_nodes, self.num_edges, self.transition.shape[1], self.dim_k, self.dim_v)
        if walks(self.schedule, self.dim_t):
            groups = self.indices.graph_ptr, self.indices.by_graph
            graphs = len(groups[0]) - 1
            _launch(walk, (self.heads * graphs, tiles), *arguments, *groups, graphs, *sizes, **options)
            return
        bounds = list(pairwise(levels))
        for first, last in reversed(bounds) if backward else bounds:
            grid = self.heads * (last - first) * self.dim_t, tiles
            _launch(level, grid, *arguments, first, last - first, *sizes, **options)

    def _options(self, kernel: str) -> dict[str, Any]:
        """Sides of the tiles, warps and stages, and the dtype of sums."""
        from plstm_torch.ops._triton.precision import numbers

        row = tuning.choose(kernel, self.source.dtype, self.source.device)
        sides = {"BK": _block(row.tile, self.dim_k), "BV": _block(row.block, self.dim_v)}
        return {**sides, **row.options, "ACC": numbers(self.source.dtype)["ACC"]}

    def _tiles(self, options: dict[str, Any]) -> int:
        return -(-self.dim_k // options["BK"]) * -(-self.dim_v // options["BV"])


def _launch(kernel: Any, grid: tuple[int, int], *arguments: Any, **options: Any) -> None:
    """Nothing is launched where there is nothing to do; only the first axis of a grid may be long."""
    if math.prod(grid) > 0:
        kernel[grid](*arguments, **options)


def _block(largest: int, size: int) -> int:
    """The side of a tile for so many channels."""
    return min(largest, max(_SMALLEST_BLOCK, 1 << (size - 1).bit_length()))


def _entries_first(vector: Tensor) -> Tensor:
    """[H,N,D,J] as [H,N,J,D]; no copy of a contiguous vector with one entry."""
    return vector.mT.contiguous()


def _state_shape(key: Tensor, value: Tensor, source: Tensor) -> tuple[int, ...]:
    return (*source.shape[:3], key.shape[2], value.shape[2])
