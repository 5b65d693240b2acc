"""From what users call a graph to the index tensors that the graph layers gather with."""

from collections.abc import Hashable, MutableMapping
from dataclasses import dataclass, fields
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

from plstm_config import checks
from plstm_config.checks import check_topology
from plstm_config.topology import DagTopology, Mode
from plstm_torch.arrays import index_array
from plstm_torch.compiling import outside_compiler
from plstm_torch.constants import constant, keep

Graph = DagTopology | Int[Tensor, "2 E"]


@dataclass(frozen=True, eq=False)
class GraphIndices:
    """The arrays of the same names of a `DagTopology`, as int64 tensors."""

    tail: Tensor
    head: Tensor
    edge_order: Tensor
    in_slot: Tensor
    out_slot: Tensor
    incoming: Tensor
    outgoing: Tensor
    node_graph: Tensor
    first_node: Tensor
    in_degree: Tensor
    out_degree: Tensor
    graph_sizes: Tensor


_KNOWN: MutableMapping[DagTopology, dict[Hashable, GraphIndices]] = WeakKeyDictionary()


@outside_compiler  # looks up Python objects
def graph_indices(topology: DagTopology, device: torch.device) -> GraphIndices:
    """The index tensors of a topology on a device, made once for each.

    Args:
        topology: the topology.
        device: where the tensors are to lie.

    Returns:
        The tensors, int64; they live as long as the topology.
    """
    return keep(_KNOWN.setdefault(topology, {}), device, lambda: _make_indices(topology, device))


def _make_indices(topology: DagTopology, device: torch.device) -> GraphIndices:
    return GraphIndices(*[constant(getattr(topology, array.name), device) for array in fields(GraphIndices)])


@outside_compiler  # reads the values of the edges
def as_topology(graph: Graph, num_nodes: int, mode: Mode | None = None) -> DagTopology:
    """Read what a graph module is given.

    Args:
        graph: a topology, or the edges of a directed acyclic graph as an integer tensor [2, E] of tails and heads.
            A topology keeps what was derived from it; a tensor is read anew at every call.
        num_nodes: number of nodes that the module has features of.
        mode: the mode that the module needs; None takes any.

    Returns:
        The topology in this mode; in P-mode if made from a tensor for any.

    Raises:
        TypeError: if the graph is neither, or the tensor does not hold integers.
        ValueError: if the topology has another number of nodes, or the edges are no directed acyclic graph.
    """
    if isinstance(graph, Tensor):
        return DagTopology.from_edge_index(num_nodes, index_array("graph", graph), mode or "P")
    check_topology(graph, num_nodes, DagTopology)
    return graph if mode is None else graph.with_mode(mode)


@outside_compiler  # may build the reversed topology
def both_directions(topology: DagTopology) -> tuple[DagTopology, DagTopology]:
    """The topology and the one with all edges turned around."""
    return topology, topology.reverse()


@outside_compiler  # reads the degrees
def check_degrees(topology: DagTopology, max_edges: int) -> None:
    """Check that no node has too many edges on one side; see `plstm_config.checks`."""
    checks.check_degrees(topology.in_degree, topology.out_degree, max_edges)


def sample_of_nodes(graph: Graph, x: Float[Tensor, "N D"]) -> Int[Tensor, " N"]:
    """The first node of the graph that each node belongs to.

    Args:
        graph: a topology, or the edges of a single graph.
        x: features of its nodes.

    Returns:
        Indices of nodes, on the device of x.
    """
    if isinstance(graph, DagTopology):
        return graph_indices(graph, x.device).first_node
    return torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
