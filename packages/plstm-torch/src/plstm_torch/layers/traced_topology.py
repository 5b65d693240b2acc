"""Topologies in compiled programs: tensors in place of arrays; what follows from the numbers is left to operators.

A compiler can neither run the loops that make a line graph nor know how many line edges come out. So a program takes
the arrays of a `DagTopology` as inputs, and operators build what a module asks of it when the program runs: one program
serves all graphs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plstm_config import checks
from plstm_config.topology import DagTopology, Mode
from plstm_torch.arrays import index_array
from plstm_torch.constants import constant
from plstm_torch.ops._plstm_graph.compiled import KEPT_GRAPHS, graph_of

# What a `GraphIndices` holds besides `edge_order`, with the letter of its size: of what `derived_indices` returns.
SIZES = {
    "tail": "E",
    "head": "E",
    "in_slot": "E",
    "out_slot": "E",
    "incoming": "L",
    "outgoing": "L",
    "node_graph": "N",
    "first_node": "N",
    "in_degree": "N",
    "out_degree": "N",
    "graph_sizes": "G",
}
_CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class TracedTopology:
    """The fields of a `DagTopology`, with tensors in place of arrays, while a program is compiled.

    Attributes:
        num_nodes: as of `DagTopology`, and all that follow.
        edges: see `num_nodes`.
        line_edges: see `num_nodes`.
        edge_order: see `num_nodes`.
        mode: see `num_nodes`.
        num_input_edges: see `num_nodes`.
        node_ptr: see `num_nodes`.
        lines_given: see `num_nodes`.
        holds_checked_indices: the op may rely on `node_ptr`.
    """

    num_nodes: int
    edges: Tensor
    line_edges: Tensor
    edge_order: Tensor
    mode: Mode
    num_input_edges: int
    node_ptr: Tensor
    lines_given: bool
    holds_checked_indices: bool = True

    def with_mode(self, mode: Mode) -> TracedTopology:
        """The same graph in a given mode; see `DagTopology`."""
        return self if mode == self.mode else replace(self._built(mode, turn=False), mode=mode)

    def reverse(self) -> TracedTopology:
        """Turn all edges around; see `DagTopology`."""
        return self._built(self.mode, turn=True)

    def _built(self, mode: Mode, *, turn: bool) -> TracedTopology:
        arrays = self.edges, self.line_edges, self.edge_order, self.node_ptr
        edges, lines, order = _rebuilt(*arrays, self.num_input_edges, self.mode, self.lines_given, mode, turn)
        return replace(self, edges=edges, line_edges=lines, edge_order=order)


def traced(topology: DagTopology) -> TracedTopology:
    """A topology whose arrays are inputs of the program that is being compiled."""
    edges, lines, order, ptr = (
        torch.as_tensor(array)
        for array in (topology.edges, topology.line_edges, topology.edge_order, topology.node_ptr)
    )
    given = topology.num_input_edges
    return TracedTopology(topology.num_nodes, edges, lines, order, topology.mode, given, ptr, topology.lines_given)


def traced_from_edge_index(edge_index: Tensor, num_nodes: int, mode: Mode) -> TracedTopology:
    """`DagTopology.from_edge_index` while a program is compiled.

    Args:
        edge_index: pairs of nodes, integers [2, E].
        num_nodes: N.
        mode: of the topology.

    Returns:
        The topology.

    Raises:
        ValueError: if the shape is another one; when the program runs, if the edges are no directed acyclic graph.
    """
    if edge_index.ndim != 2 or edge_index.shape[0] != 2:
        raise ValueError(f"edge_index: expected [2,E], got {tuple(edge_index.shape)}")
    edges, lines, order = _from_edge_index(edge_index, num_nodes, mode)
    node_ptr = num_nodes * torch.arange(2)
    return TracedTopology(num_nodes, edges, lines, order, mode, edge_index.shape[1], node_ptr, False)


def derived_indices(topology: TracedTopology, device: torch.device, max_edges: int = -1) -> dict[str, Tensor]:
    """What is gathered with, by the names of `SIZES`.

    Args:
        topology: of the program.
        device: where the tensors are to lie.
        max_edges: if not negative, nodes with more edges on one side are refused when the program runs.

    Returns:
        The tensors, int64.
    """
    arrays = topology.edges, topology.line_edges, topology.node_ptr
    tensors = _derived(*arrays, topology.num_nodes, max_edges, device)
    return dict(zip(SIZES, tensors, strict=True))


@torch.library.custom_op(
    "plstm_torch::graph_indices",
    mutates_args=(),
    schema="(Tensor edges, Tensor line_edges, Tensor node_ptr, SymInt num_nodes, SymInt max_edges, Device device)"
    " -> Tensor[]",
)
def _derived(
    edges: Tensor, line_edges: Tensor, node_ptr: Tensor, num_nodes: int, max_edges: int, device: torch.device
) -> list[Tensor]:
    graph = graph_of(edges, line_edges, node_ptr)
    if max_edges >= 0:
        checks.check_degrees(graph.in_degree, graph.out_degree, max_edges)
    return [constant(getattr(graph, name), device) for name in SIZES]


@_derived.register_fake
def _(
    edges: Tensor, line_edges: Tensor, node_ptr: Tensor, num_nodes: int, max_edges: int, device: torch.device
) -> list[Tensor]:
    sizes = {"E": edges.shape[0], "L": line_edges.shape[0], "N": num_nodes, "G": node_ptr.shape[0] - 1}
    return [torch.empty(sizes[letter], dtype=torch.int64, device=device) for letter in SIZES.values()]


@torch.library.custom_op(
    "plstm_torch::graph_from_edge_index",
    mutates_args=(),
    schema="(Tensor edge_index, SymInt num_nodes, str mode) -> Tensor[]",
)
def _from_edge_index(edge_index: Tensor, num_nodes: int, mode: str) -> list[Tensor]:
    edges = index_array("graph", edge_index)
    return _parts(DagTopology.from_edge_index(num_nodes, edges, mode))  # type: ignore[arg-type]


@_from_edge_index.register_fake
def _(edge_index: Tensor, num_nodes: int, mode: str) -> list[Tensor]:
    return _empty_parts(edge_index.shape[1], torch.library.get_ctx().new_dynamic_size())


@torch.library.custom_op(
    "plstm_torch::graph_rebuilt",
    mutates_args=(),
    schema="(Tensor edges, Tensor line_edges, Tensor edge_order, Tensor node_ptr, SymInt num_input_edges, str mode, "
    "bool lines_given, str new_mode, bool turn) -> Tensor[]",
)
def _rebuilt(
    edges: Tensor,
    line_edges: Tensor,
    edge_order: Tensor,
    node_ptr: Tensor,
    num_input_edges: int,
    mode: str,
    lines_given: bool,
    new_mode: str,
    turn: bool,
) -> list[Tensor]:
    arrays = (index_array("graph", array).tobytes() for array in (edges, line_edges, edge_order, node_ptr))
    topology = _topology_of(*arrays, mode, num_input_edges, lines_given)
    return _parts(topology.reverse() if turn else topology.with_mode(new_mode))  # type: ignore[arg-type]


@_rebuilt.register_fake
def _(edges: Tensor, line_edges: Tensor, *rest: Any) -> list[Tensor]:
    mode, lines_given, _, turn = rest[3:]
    as_many = lines_given or (turn and mode == "P")  # else pruning decides
    lines = line_edges.shape[0] if as_many else torch.library.get_ctx().new_dynamic_size()
    return _empty_parts(edges.shape[0], lines)


@lru_cache(maxsize=KEPT_GRAPHS)
def _topology_of(
    edges: bytes, line_edges: bytes, edge_order: bytes, node_ptr: bytes, mode: Mode, given: int, lines_given: bool
) -> DagTopology:
    pairs, lines = (np.frombuffer(part, np.int64).reshape(-1, 2) for part in (edges, line_edges))
    order, bounds = (np.frombuffer(part, np.int64) for part in (edge_order, node_ptr))
    return DagTopology(int(bounds[-1]), pairs, lines, order, mode, given, bounds, lines_given)


def _parts(topology: DagTopology) -> list[Tensor]:
    return [constant(array, _CPU) for array in (topology.edges, topology.line_edges, topology.edge_order)]


def _empty_parts(num_edges: Any, num_lines: Any) -> list[Tensor]:
    shapes = ((num_edges, 2), (num_lines, 2), (num_edges,))
    return [torch.empty(shape, dtype=torch.int64, device=_CPU) for shape in shapes]
