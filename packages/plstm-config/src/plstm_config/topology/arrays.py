"""The index arrays of a graph that layers and ops gather with, derived once for every framework."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from plstm_config.topology.build import groups
from plstm_config.topology.edges import Index, as_pairs, ranks
from plstm_config.topology.indices import check_indices
from plstm_config.topology.line_graph import second_path
from plstm_config.topology.schedule import LevelSchedule, level_schedule


class IndexArrays:
    """What follows from the edges and the line edges of a graph, or of a batch of graphs; int64, computed on demand.

    Every backend maps these arrays to its own and derives none by itself. They are not to be changed.

    Attributes:
        num_nodes: N.
        edges: pairs (tail, head) in topological order [E,2].
        line_edges: pairs (incoming, outgoing) of indices into `edges` [L,2].
        node_ptr: the nodes of graph g run from entry g up to, not including, entry g + 1 [G+1].
    """

    num_nodes: int
    edges: Index
    line_edges: Index
    node_ptr: Index

    @property
    def tail(self) -> Index:
        """Node where each edge starts [E]."""
        return self.edges[:, 0]

    @property
    def head(self) -> Index:
        """Node where each edge ends [E]."""
        return self.edges[:, 1]

    @property
    def incoming(self) -> Index:
        """Edge that each line edge comes from [L]."""
        return self.line_edges[:, 0]

    @property
    def outgoing(self) -> Index:
        """Edge that each line edge leads to [L]."""
        return self.line_edges[:, 1]

    @cached_property
    def schedule(self) -> LevelSchedule:
        """Edges and line edges level by level, over all graphs at once."""
        return level_schedule(len(self.edges), self.line_edges)

    @property
    def levels(self) -> Index:
        """Length of the longest path in the line graph that ends in each edge [E]."""
        return self.schedule.levels

    @cached_property
    def in_slot(self) -> Index:
        """Rank of each edge among the edges that end in its head, in the order of `edges` [E]."""
        return ranks(self.head, self.num_nodes)

    @cached_property
    def out_slot(self) -> Index:
        """Rank of each edge among the edges that start in its tail, in the order of `edges` [E]."""
        return ranks(self.tail, self.num_nodes)

    @cached_property
    def in_degree(self) -> Index:
        """Number of edges that end in each node [N]."""
        return np.bincount(self.head, minlength=self.num_nodes)

    @cached_property
    def out_degree(self) -> Index:
        """Number of edges that start in each node [N]."""
        return np.bincount(self.tail, minlength=self.num_nodes)

    @property
    def num_graphs(self) -> int:
        """G, the number of graphs."""
        return len(self.node_ptr) - 1

    @property
    def graph_sizes(self) -> Index:
        """Number of nodes of each graph [G]."""
        return np.diff(self.node_ptr)

    @cached_property
    def node_graph(self) -> Index:
        """Graph of each node [N]."""
        return np.repeat(np.arange(self.num_graphs), self.graph_sizes)

    @cached_property
    def first_node(self) -> Index:
        """First node of the graph of each node [N]."""
        return self.node_ptr[self.node_graph]

    @cached_property
    def node_position(self) -> Index:
        """Rank of each node within its graph [N]."""
        return np.arange(self.num_nodes) - self.first_node

    @cached_property
    def edge_graph(self) -> Index:
        """Graph of each edge [E]."""
        return self.node_graph[self.tail]

    @cached_property
    def line_edge_graph(self) -> Index:
        """Graph of each line edge [L]."""
        return self.edge_graph[self.outgoing]

    @cached_property
    def edge_ptr(self) -> Index:
        """The edges of graph g run from entry g up to, not including, entry g + 1 [G+1]."""
        return groups(self.edge_graph, self.num_graphs)

    @cached_property
    def line_ptr(self) -> Index:
        """The line edges of graph g run from entry g up to, not including, entry g + 1 [G+1]."""
        return groups(self.line_edge_graph, self.num_graphs)

    @cached_property
    def edge_position(self) -> Index:
        """Rank of each edge within its graph [E]."""
        return np.arange(len(self.edges)) - self.edge_ptr[self.edge_graph]

    @cached_property
    def is_multitree(self) -> bool:
        """Whether there is at most one path between any two edges."""
        return second_path(len(self.edges), self.line_edges) is None


@dataclass(frozen=True, eq=False)
class GivenIndices(IndexArrays):
    """One graph as somebody else made it: an edge may occur twice, and the edges stand in any topological order.

    Made by `index_arrays`. The attributes are those of `IndexArrays`.
    """

    num_nodes: int
    edges: Index
    line_edges: Index
    node_ptr: Index


def index_arrays(topology: Any, num_nodes: int) -> IndexArrays:
    """The index arrays of what an op is given as a graph.

    Args:
        topology: a `DagTopology`, or anything with `edges` [E,2] in topological order and `line_edges` [L,2].
        num_nodes: N.

    Returns:
        The arrays: the topology itself, if it has them.

    Raises:
        TypeError: if the indices are no integers.
        ValueError: if they are no DAG in topological order.
    """
    if isinstance(topology, IndexArrays):
        return topology
    check_indices(topology.edges, topology.line_edges, num_nodes)
    edges, line_edges = as_pairs("topology.edges", topology.edges), as_pairs("topology.line_edges", topology.line_edges)
    return GivenIndices(num_nodes, edges, line_edges, np.array([0, num_nodes]))
