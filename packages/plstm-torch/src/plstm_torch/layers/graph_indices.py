"""From what users call a graph to the index tensors that the graph layers gather with."""

from collections.abc import Hashable, MutableMapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

from plstm_config.topology import DagTopology, Mode
from plstm_torch.constants import constant, keep

Graph = DagTopology | Int[Tensor, "2 E"]


@dataclass(frozen=True, eq=False)
class GraphIndices:
    """Index arrays of a topology as tensors.

    Attributes:
        tail: node where each edge starts [E].
        head: node where it ends [E].
        edge_order: its position in the input [E].
        in_slot: its rank among the edges that end in its head [E].
        out_slot: its rank among the edges that start in its tail [E].
        incoming: edge that each line edge comes from [L].
        outgoing: edge that it leads to [L].
        node_graph: graph of each node [N].
        first_node: first node of this graph [N].
        in_degree: number of edges that end in each node [N].
        out_degree: number of edges that start in each node [N].
        graph_sizes: number of nodes of each graph [G].
    """

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


@torch.compiler.disable  # type: ignore[untyped-decorator]  # looks up Python objects
def graph_indices(topology: DagTopology, device: torch.device) -> GraphIndices:
    """The index tensors of a topology on a device, made once for each.

    Args:
        topology: The topology.
        device: Where the tensors are to lie.

    Returns:
        The tensors, int64; they live as long as the topology.
    """
    return keep(_KNOWN.setdefault(topology, {}), device, lambda: _make_indices(topology, device))


def _make_indices(topology: DagTopology, device: torch.device) -> GraphIndices:
    arrays = {
        "tail": topology.edges[:, 0],
        "head": topology.edges[:, 1],
        "edge_order": topology.edge_order,
        "in_slot": topology.in_slot,
        "out_slot": topology.out_slot,
        "incoming": topology.line_edges[:, 0],
        "outgoing": topology.line_edges[:, 1],
        "node_graph": topology.node_graph,
        "first_node": topology.node_ptr[topology.node_graph],
        "in_degree": topology.in_degree,
        "out_degree": topology.out_degree,
        "graph_sizes": topology.graph_sizes,
    }
    return GraphIndices(**{name: constant(array, device) for name, array in arrays.items()})


@torch.compiler.disable  # type: ignore[untyped-decorator]  # reads the values of the edges
def as_topology(graph: Graph, num_nodes: int, mode: Mode | None = None) -> DagTopology:
    """Read what a graph module is given.

    Args:
        graph: A topology, or the edges of a directed acyclic graph as an integer tensor [2, E] of tails and heads.
            A topology keeps what was derived from it; a tensor is read anew at every call.
        num_nodes: Number of nodes that the module has features of.
        mode: The mode that the module needs; None takes any.

    Returns:
        The topology in this mode; in P-mode if made from a tensor for any.

    Raises:
        TypeError: If the graph is neither, or the tensor does not hold integers.
        ValueError: If the topology has another number of nodes, or the edges are no directed acyclic graph.
    """
    if isinstance(graph, Tensor):
        return DagTopology.from_edge_index(num_nodes, graph.detach().cpu().numpy(), mode or "P")
    if not isinstance(graph, DagTopology):
        raise TypeError(f"graph: expected a DagTopology or an edge_index [2,E], got {type(graph).__name__}")
    if graph.num_nodes != num_nodes:
        raise ValueError(f"graph: expected a graph of N={num_nodes} nodes, as many as x has, got {graph.num_nodes}")
    return graph if mode is None else graph.with_mode(mode)


@torch.compiler.disable  # type: ignore[untyped-decorator]  # may build the reversed topology
def both_directions(topology: DagTopology) -> tuple[DagTopology, DagTopology]:
    """The topology and the one with all edges turned around."""
    return topology, topology.reverse()


@torch.compiler.disable  # type: ignore[untyped-decorator]  # reads the degrees
def check_degrees(topology: DagTopology, max_edges: int) -> None:
    """Check that no node has too many edges on one side.

    Args:
        topology: The topology.
        max_edges: The largest number of edges that may enter, and that may leave a node.

    Raises:
        ValueError: If a node has more; the message names it.
    """
    for degree, way in ((topology.in_degree, "into"), (topology.out_degree, "out of")):
        if degree.max(initial=0) > max_edges:
            raise ValueError(
                f"graph: expected at most max_edges={max_edges} edges {way} a node, "
                f"got {degree.max()} {way} node {degree.argmax()}; "
                "raise max_edges, or give edges features (pLSTMGraphEdge)"
            )


def sample_of_nodes(graph: Graph, x: Float[Tensor, "N D"]) -> Int[Tensor, " N"]:
    """The first node of the graph that each node belongs to.

    Args:
        graph: A topology, or the edges of a single graph.
        x: Features of its nodes.

    Returns:
        Indices of nodes, on the device of x.
    """
    if isinstance(graph, DagTopology):
        return graph_indices(graph, x.device).first_node
    return torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
