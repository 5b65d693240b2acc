"""What the tests of topologies share: drawn graphs, and what networkx makes of them."""

from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

Edge = tuple[int, int]
Graph = tuple[int, list[Edge]]
Lines = set[tuple[Edge, Edge]]

settings.register_profile("untimed", deadline=None)  # a busy machine is no error
settings.load_profile("untimed")


@st.composite
def draw_dags(draw: Any, max_nodes: int = 10) -> Graph:
    """A DAG whose nodes and edges come in any order."""
    size = draw(st.integers(0, max_nodes))
    if size < 2:
        return size, []
    order = draw(st.permutations(range(size)))
    pairs = [(order[a], order[b]) for a in range(size) for b in range(a + 1, size)]
    return size, draw(st.lists(st.sampled_from(pairs), unique=True, max_size=30))


def make_networkx(graph: Graph) -> nx.DiGraph:
    size, edges = graph
    result = nx.DiGraph()
    result.add_nodes_from(range(size))
    result.add_edges_from(edges)
    return result


def compute_pruned(graph: Graph) -> Lines:
    """The definition of D-mode, word for word."""
    line_graph = nx.line_graph(make_networkx(graph))
    order = {edge: place for place, edge in enumerate(nx.topological_sort(line_graph))}
    ancestors: dict[Edge, set[Edge]] = {edge: set() for edge in order}
    kept = set()
    for edge in order:
        for earlier in sorted(line_graph.predecessors(edge), key=order.__getitem__):
            if not ancestors[earlier] & ancestors[edge]:
                kept.add((earlier, edge))
                ancestors[edge] |= {earlier} | ancestors[earlier]
    return kept


def name_lines(edges: Any, line_edges: Any) -> Lines:
    """Line edges as pairs of edges."""
    named = [tuple(edge) for edge in np.asarray(edges).tolist()]
    return {(named[first], named[second]) for first, second in np.asarray(line_edges).tolist()}


@pytest.fixture(scope="session")
def dags() -> Callable[..., st.SearchStrategy[Graph]]:
    return draw_dags


@pytest.fixture(scope="session")
def as_networkx() -> Callable[[Graph], nx.DiGraph]:
    return make_networkx


@pytest.fixture(scope="session")
def pruned() -> Callable[[Graph], Lines]:
    return compute_pruned


@pytest.fixture(scope="session")
def named_lines() -> Callable[[Any, Any], Lines]:
    return name_lines
