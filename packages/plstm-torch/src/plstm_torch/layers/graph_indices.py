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
from plstm_torch.constants import constant, keep
from plstm_torch.layers.traced_topology import TracedTopology, derived_indices, traced, traced_from_edge_index
from plstm_torch.ops._plstm_graph.compiled import takes_graphs

Topology = DagTopology | TracedTopology
Graph = Topology | Int[Tensor, "2 E"]


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


def graph_indices(topology: Topology, device: torch.device, max_edges: int | None = None) -> GraphIndices:
    """The index tensors of a topology on a device, made once for each; anew at every call of a compiled program.

    Args:
        topology: the topology.
        device: where the tensors are to lie.
        max_edges: the largest number of edges that may enter, and that may leave a node; any if None.

    Returns:
        The tensors, int64; they live as long as the topology.

    Raises:
        ValueError: if a node has more edges; the message names it.
    """
    if isinstance(topology, TracedTopology):
        found = derived_indices(topology, device, -1 if max_edges is None else max_edges)
        return GraphIndices(edge_order=topology.edge_order.to(device), **found)
    if max_edges is not None:
        checks.check_degrees(topology.in_degree, topology.out_degree, max_edges)
    return keep(_KNOWN.setdefault(topology, {}), device, lambda: _make_indices(topology, device))


def _make_indices(topology: DagTopology, device: torch.device) -> GraphIndices:
    return GraphIndices(*[constant(getattr(topology, array.name), device) for array in fields(GraphIndices)])


def as_topology(graph: Graph, num_nodes: int, mode: Mode | None = None) -> Topology:
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
    compiling = takes_graphs()
    if isinstance(graph, Tensor):
        if compiling:
            return traced_from_edge_index(graph, num_nodes, mode or "P")
        return DagTopology.from_edge_index(num_nodes, index_array("graph", graph), mode or "P")
    check_topology(graph, num_nodes, (DagTopology, TracedTopology))
    topology = traced(graph) if compiling and isinstance(graph, DagTopology) else graph
    return topology if mode is None else topology.with_mode(mode)


def sample_of_nodes(graph: Graph, x: Float[Tensor, "N D"]) -> Int[Tensor, " N"]:
    """The first node of the graph that each node belongs to.

    Args:
        graph: a topology, or the edges of a single graph.
        x: features of its nodes.

    Returns:
        Indices of nodes, on the device of x.
    """
    if isinstance(graph, Tensor):
        return torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
    return graph_indices(as_topology(graph, x.shape[0]), x.device).first_node
