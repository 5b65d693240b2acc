"""The passes over a graph as operators that a compiler sees from outside, with the graph's index tensors as inputs.

Levels, blocks and padded sizes follow from the numbers in the index tensors, which no compiler can know. So the
operators take the tensors themselves and look up what follows from them when they run: one program serves all graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from plstm_config.topology.arrays import GivenIndices, IndexArrays
from plstm_config.topology.edges import as_pairs
from plstm_config.topology.indices import check_indices
from plstm_torch.arrays import index_array
from plstm_torch.ops._exporting import is_exporting
from plstm_torch.ops._fast_form import Tensors, fold, kinds, run_forward, run_gradients, unfold, with_zeros
from plstm_torch.ops._plstm_graph.dense import DenseForm, DenseStatesForm
from plstm_torch.ops._plstm_graph.forms import dense_form, kernel_form, resolve_implementation, states_form
from plstm_torch.ops._plstm_graph.levels import LevelForm, LevelReadForm, edge_factors
from plstm_torch.ops._plstm_graph.native import NativeForm
from plstm_torch.ops._plstm_graph.plan import LevelSchedule, level_schedule
from plstm_torch.ops._plstm_graph.triton.form import KernelForm, allocate

# Graphs whose indices are kept, by their numbers: those of one step of a model (both modes, both directions), forward
# and backward, and of a few steps around it.
KEPT_GRAPHS = 16
# What is flattened and kept of a form without states, however many tensors it saves.
_SAVED = 2
_SCHEMA = "(Tensor[] inputs, Tensor edges, Tensor line_edges, Tensor node_ptr, str implementation, bool states)"


def takes_graphs() -> bool:
    """Whether a program is compiled that takes graphs as inputs; one that is exported holds its graph."""
    return torch.compiler.is_compiling() and not is_exporting()


class IndexTensors(NamedTuple):
    """A topology in a compiled program.

    Attributes:
        edges: pairs (tail, head) in topological order, integers [E,2].
        line_edges: pairs (incoming, outgoing) of indices into `edges` [L,2].
        node_ptr: the nodes of graph g run from entry g up to, not including, entry g + 1 [G+1].
    """

    edges: Tensor
    line_edges: Tensor
    node_ptr: Tensor


def index_tensors(topology: Any, num_nodes: int) -> IndexTensors:
    """The index tensors of what an op is given as a graph; to be traced.

    Args:
        topology: a `DagTopology` or another holder of its arrays; or anything with `edges` and `line_edges`.
        num_nodes: N.

    Returns:
        The tensors; those that are numpy arrays become inputs of the program.
    """
    # borders of graphs are only believed where they have been checked
    known = isinstance(topology, IndexArrays) or getattr(topology, "holds_checked_indices", False)
    node_ptr = torch.as_tensor(topology.node_ptr) if known else num_nodes * torch.arange(2)
    return IndexTensors(torch.as_tensor(topology.edges), torch.as_tensor(topology.line_edges), node_ptr)


def graph_of(edges: Tensor, line_edges: Tensor, node_ptr: Tensor) -> GivenIndices:
    """The graph of index tensors with numbers, and whatever is derived from it; the last ones are kept.

    Raises:
        TypeError: if the indices are no integers.
        ValueError: if they are no DAG in topological order.
    """
    pairs = {"edges": edges, "line_edges": line_edges}
    arrays = [as_pairs(f"topology.{name}", index_array(f"topology.{name}", pairs[name])) for name in pairs]
    return _graph_of(*(array.tobytes() for array in arrays), index_array("node_ptr", node_ptr).tobytes())


@lru_cache(maxsize=KEPT_GRAPHS)
def _graph_of(*numbers: bytes) -> GivenIndices:
    edges, line_edges, node_ptr = (np.frombuffer(part, np.int64) for part in numbers)
    edges, line_edges, num_nodes = edges.reshape(-1, 2), line_edges.reshape(-1, 2), int(node_ptr[-1])
    check_indices(edges, line_edges, num_nodes)
    return GivenIndices(num_nodes, edges, line_edges, node_ptr)


class CompiledGraph(NamedTuple):
    """A graph while a program is compiled.

    Attributes:
        indices: its index tensors.
        tail: as in `LevelSchedule`, and all that follow; the operators take edges and line edges in this order.
        head: see `tail`.
        edges: see `tail`.
        positions: see `tail`.
        lines: see `tail`.
    """

    indices: IndexTensors
    tail: Tensor
    head: Tensor
    edges: Tensor
    positions: Tensor
    lines: Tensor


def compiled_graph(indices: IndexTensors, device: torch.device) -> CompiledGraph:
    """The graph of index tensors, its order on a device; to be traced."""
    return CompiledGraph(indices, *_order_operator(*indices, device))


@torch.library.custom_op(
    "plstm_torch::graph_order",
    mutates_args=(),
    schema="(Tensor edges, Tensor line_edges, Tensor node_ptr, Device device) -> Tensor[]",
)
def _order_operator(edges: Tensor, line_edges: Tensor, node_ptr: Tensor, device: torch.device) -> list[Tensor]:
    schedule = _schedule(IndexTensors(edges, line_edges, node_ptr), device)

    def order(given: Tensor | None, size: int) -> Tensor:
        return torch.arange(size, device=device) if given is None else given.clone()

    num_edges, num_lines = edges.shape[0], line_edges.shape[0]
    permutations = ((schedule.edges, num_edges), (schedule.positions, num_edges), (schedule.lines, num_lines))
    # copies, since a compiled program may write into what an operator gave it
    return [schedule.tail.clone(), schedule.head.clone(), *(order(*given) for given in permutations)]


@_order_operator.register_fake
def _(edges: Tensor, line_edges: Tensor, node_ptr: Tensor, device: torch.device) -> list[Tensor]:
    sizes = [edges.shape[0]] * 4 + [line_edges.shape[0]]
    return [torch.empty(size, dtype=torch.int64, device=device) for size in sizes]


def _schedule(indices: IndexTensors, device: torch.device) -> LevelSchedule:
    graph = graph_of(*indices)
    return level_schedule(graph, graph.num_nodes, device)


@dataclass(frozen=True)
class _Passes:
    """Both passes of a function over a graph, for any of its forms; tensors are batch first but for `saved`.

    Attributes:
        form: (schedule, implementation, states, inputs) -> a form.
        allocate: (implementation, states, inputs) -> empty outputs, and empty saved.
        keep: (form, what it saves) -> the saved tensors.
        kept: (form, inputs, the saved tensors) -> what it saved.
    """

    form: Callable[[LevelSchedule, str, bool, Sequence[Tensor]], Any]
    allocate: Callable[[str, bool, Sequence[Tensor]], tuple[list[Tensor], list[Tensor]]]
    keep: Callable[[Any, Tensors], list[Tensor]]
    kept: Callable[[Any, Tensors, Tensors], Tensors]

    def run(self, inputs: list[Tensor], graph: IndexTensors, implementation: str, states: bool) -> list[Tensor]:
        form = self.form(_schedule(graph, inputs[0].device), implementation, states, inputs)
        outputs, saved = run_forward(form, inputs)
        return [*(output.contiguous() for output in outputs), *self.keep(form, saved)]

    def gradients(
        self, inputs: list[Tensor], graph: IndexTensors, implementation: str, states: bool, results: list[list[Tensor]]
    ) -> list[Tensor]:
        form = self.form(_schedule(graph, inputs[0].device), implementation, states, inputs)
        saved, cotangents = map(tuple, results)
        found = run_gradients(form, tuple(inputs), self.kept(form, tuple(inputs), saved), cotangents)
        return [gradient.contiguous() for gradient in found]


def _read_form(
    schedule: LevelSchedule, implementation: str, states: bool, inputs: Sequence[Tensor]
) -> DenseForm | LevelReadForm:
    if resolve_implementation(implementation, schedule.max_edges, False) == "parallel":
        return dense_form(schedule, *inputs[1:4])
    return LevelReadForm(schedule)


def _allocate_read(implementation: str, states: bool, inputs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    query, _, value, _, _, mark = inputs
    context = torch.library.get_ctx()
    saved = [query.new_empty(context.new_dynamic_size()) for _ in range(_SAVED)]
    read = query.new_empty(*value.shape[:3], mark.shape[2])
    return [read], [*saved, query.new_empty(query.shape[0], dtype=torch.bool)]


def _keep_read(form: DenseForm | LevelReadForm, saved: Tensors) -> list[Tensor]:
    """Flattened, since their number and their shapes depend on the graph; last the rows left to the careful form."""
    *tensors, spoilt = saved if form.careful else (*saved, saved[0].new_zeros(saved[0].shape[1], dtype=torch.bool))
    flat = [tensor.flatten() for tensor in tensors]
    return [*flat, *(flat[0].new_empty(0) for _ in range(_SAVED - len(flat))), spoilt]


def _kept_read(form: DenseForm | LevelReadForm, inputs: Tensors, saved: Tensors) -> Tensors:
    *flat, spoilt = saved
    tensors = (tensor.view(shape) for tensor, shape in zip(flat, form.saved_shapes(*inputs), strict=False))
    return (*tensors, spoilt) if form.careful else tuple(tensors)


def _states_form(
    schedule: LevelSchedule, implementation: str, states: bool, inputs: Sequence[Tensor]
) -> LevelForm | DenseStatesForm:
    return states_form(schedule, implementation, states, *inputs[:2])


def _allocate_states(implementation: str, states: bool, inputs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    key, written, _, reading, *_ = inputs
    heads, num_edges, jt, _, dv = written.shape
    read = key.new_empty(*reading.shape[:3], dv)
    edges_first = key.new_empty(num_edges, heads, jt, key.shape[2], dv)  # as the levels compute and save them
    whole = key.new_empty(heads, num_edges, jt, key.shape[2], dv)
    if implementation == "parallel":
        return [read, whole], [torch.empty_like(whole), key.new_empty(heads, dtype=torch.bool)]
    return [read, whole] if states else [read], [edges_first.transpose(0, 1)]


def _kernel_form(
    schedule: LevelSchedule, implementation: str, states: bool, inputs: Sequence[Tensor]
) -> NativeForm | KernelForm:
    return kernel_form(schedule, implementation, states)


def _allocate_kernels(implementation: str, states: bool, inputs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    outputs, saved = allocate(states, tuple(inputs))
    return outputs, [] if implementation == "native" else saved


def _operator(name: str, passes: _Passes) -> Callable[..., list[Tensor]]:
    """Both passes as operators with known shapes and a known backward."""

    @torch.library.custom_op(f"plstm_torch::{name}", mutates_args=(), schema=f"{_SCHEMA} -> Tensor[]")
    def forward(
        inputs: list[Tensor], edges: Tensor, line_edges: Tensor, node_ptr: Tensor, implementation: str, states: bool
    ) -> list[Tensor]:
        return passes.run(inputs, IndexTensors(edges, line_edges, node_ptr), implementation, states)

    schema = f"{_SCHEMA[:-1]}, Tensor[] saved, Tensor[] cotangents) -> Tensor[]"

    @torch.library.custom_op(f"plstm_torch::{name}_gradients", mutates_args=(), schema=schema)
    def gradients(
        inputs: list[Tensor],
        edges: Tensor,
        line_edges: Tensor,
        node_ptr: Tensor,
        implementation: str,
        states: bool,
        saved: list[Tensor],
        cotangents: list[Tensor],
    ) -> list[Tensor]:
        return passes.gradients(
            inputs, IndexTensors(edges, line_edges, node_ptr), implementation, states, [saved, cotangents]
        )

    @forward.register_fake
    def _(inputs: list[Tensor], *given: Any) -> list[Tensor]:
        implementation, states = given[3:]
        outputs, saved = passes.allocate(implementation, states, inputs)
        return [*outputs, *saved]

    @gradients.register_fake
    def _(inputs: list[Tensor], *given: Any) -> list[Tensor]:
        return [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in inputs]

    @forward.register_vmap
    def _(info: Any, in_dims: Any, inputs: list[Tensor], *given: Any) -> tuple[Any, Any]:
        results = forward(fold(info.batch_size, in_dims[0], inputs), *given)
        size = _num_outputs(name, *given[3:])
        outputs = unfold(info.batch_size, results[:size])  # nobody maps over what is saved
        return [*outputs, *results[size:]], [0] * size + [None] * (len(results) - size)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
        tensors, *graph, ctx.implementation, ctx.states = inputs
        size = _num_outputs(name, ctx.implementation, ctx.states)
        ctx.kinds, ctx.num_inputs = kinds(output[:size]), len(tensors)
        ctx.save_for_backward(*graph, *tensors, *output[size:])

    def backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
        tensors = list(ctx.saved_tensors)  # once, since a checkpoint hands them out once
        graph, inputs, saved = tensors[:3], tensors[3 : 3 + ctx.num_inputs], tensors[3 + ctx.num_inputs :]
        cotangents = with_zeros(grads, ctx.kinds, inputs[0])
        found = gradients(inputs, *graph, ctx.implementation, ctx.states, saved, cotangents)
        return found, None, None, None, None, None

    forward.register_autograd(backward, setup_context=setup_context)
    return forward


def _num_outputs(name: str, implementation: str, states: bool) -> int:
    return 2 if name != "graph_read" and (states or implementation == "parallel") else 1


_read = _operator("graph_read", _Passes(_read_form, _allocate_read, _keep_read, _kept_read))
_AS_THEY_ARE = (lambda form, saved: list(saved)), (lambda form, inputs, saved: saved)
_with_states = _operator("graph_states", _Passes(_states_form, _allocate_states, *_AS_THEY_ARE))
_by_kernels = _operator("graph_kernels", _Passes(_kernel_form, _allocate_kernels, *_AS_THEY_ARE))


def walk_compiled(
    graph: CompiledGraph, implementation: str, return_states: bool, own: Tensor, inputs: Tensors, initial: list[Tensor]
) -> tuple[Tensor, Tensor | None]:
    """As `walk_now`; to be traced. Without states, "auto" is decided by the graph when the program runs."""
    if implementation in ("native", "triton"):
        results = _by_kernels([*inputs, *initial], *graph.indices, implementation, return_states)
        return own + results[0], results[1] if return_states else None
    if not initial and not return_states:
        return own + _read(list(inputs), *graph.indices, implementation, False)[0], None
    name = resolve_implementation(implementation, 0, with_states=True)
    factors = edge_factors(graph, *inputs)
    results = _with_states([*factors, *initial], *graph.indices, name, return_states)
    return own.index_add(1, graph.head, results[0].mT), results[1] if return_states else None
