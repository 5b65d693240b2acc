"""A batch holds its graphs side by side."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plstm_config.topology import DagTopology

ARRAYS = ("edges", "line_edges", "edge_order", "node_ptr", "levels", "in_slot", "out_slot")


def same(first: DagTopology, second: DagTopology) -> bool:
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ARRAYS)


@given(st.data())
def test_parts_lie_between_their_bounds(dags, data) -> None:
    mode = data.draw(st.sampled_from("PD"))
    graphs = data.draw(st.lists(dags(6), max_size=4))
    parts = [DagTopology.from_edges(*graph, mode) for graph in graphs]
    batch = DagTopology.batch(parts)
    assert batch.num_graphs == len(parts)
    assert batch.graph_sizes.tolist() == [size for size, _ in graphs]
    given_before = 0
    for number, part in enumerate(parts):
        nodes, edges, lines = (
            slice(*ptr[number : number + 2]) for ptr in (batch.node_ptr, batch.edge_ptr, batch.line_ptr)
        )
        assert np.array_equal(batch.edges[edges] - nodes.start, part.edges)
        assert np.array_equal(batch.line_edges[lines] - edges.start, part.line_edges)
        assert np.array_equal(batch.edge_order[edges] - given_before, part.edge_order)
        assert np.array_equal(batch.levels[edges], part.levels)
        assert np.array_equal(batch.in_degree[nodes], part.in_degree)
        assert (batch.node_graph[nodes] == number).all()
        assert (batch.edge_graph[edges] == number).all()
        assert (batch.line_edge_graph[lines] == number).all()
        assert batch.edge_position[edges].tolist() == list(range(len(part.edges)))
        given_before += part.num_input_edges
    assert batch.num_input_edges == given_before


@given(st.data())
def test_batching_commutes_with_the_rest(dags, data) -> None:
    mode = data.draw(st.sampled_from("PD"))
    parts = [DagTopology.from_edges(*graph, mode) for graph in data.draw(st.lists(dags(6), min_size=1, max_size=4))]
    batch = DagTopology.batch(parts)
    assert same(batch.reverse(), DagTopology.batch([part.reverse() for part in parts]))
    assert same(batch.with_mode("D"), DagTopology.batch([part.with_mode("D") for part in parts]))
    assert same(DagTopology.batch([DagTopology.batch(parts[:2]), *parts[2:]]), batch)
    assert same(DagTopology.batch(parts[:1]), parts[0])


@given(st.data())
def test_bounds_make_a_batch(dags, data) -> None:
    """One list of edges with the bounds of its graphs, in any order, is the batch of the graphs."""
    mode = data.draw(st.sampled_from("PD"))
    graphs = data.draw(st.lists(dags(6), max_size=4))
    bounds = np.cumsum([0, *(size for size, _ in graphs)])
    edges = [(a + start, b + start) for start, (_, edges) in zip(bounds, graphs, strict=False) for a, b in edges]
    joined = DagTopology.from_edges(int(bounds[-1]), edges, mode, node_ptr=bounds)
    assert same(joined, DagTopology.batch([DagTopology.from_edges(*graph, mode) for graph in graphs]))


@pytest.mark.parametrize("bounds", [[0, 2], [1, 3], [0, 2, 1, 3], [], [[0, 3]]])
def test_bounds_rise_over_all_nodes(bounds) -> None:
    with pytest.raises(ValueError, match=r"^node_ptr: expected bounds that rise from 0 to N=3, got \["):
        DagTopology.from_edges(3, [], node_ptr=bounds)


def test_no_edge_crosses_bounds() -> None:
    with pytest.raises(ValueError, match=r"^edges: expected them graph by graph, and none from one graph"):
        DagTopology.from_edges(3, [(0, 2)], node_ptr=[0, 1, 3])


def test_levels_of_all_graphs_run_together() -> None:
    chain = DagTopology.from_edges(4, [(0, 1), (1, 2), (2, 3)])
    batch = DagTopology.batch([chain, DagTopology.from_edges(0, []), chain])
    assert batch.schedule.num_levels == 3
    assert batch.schedule.edges.tolist() == [0, 3, 1, 4, 2, 5]


def test_no_graphs() -> None:
    empty = DagTopology.batch([])
    assert (empty.num_graphs, empty.num_nodes, empty.edges.shape) == (0, 0, (0, 2))
    assert empty.reverse().num_graphs == 0


def test_given_line_edges_may_be_batched() -> None:
    part = DagTopology.from_line_edges(3, [(0, 1), (1, 2)], [])
    batch = DagTopology.batch([part, part])
    assert batch.lines_given
    assert len(batch.line_edges) == len(batch.reverse().line_edges) == 0


def test_what_does_not_go_together() -> None:
    chain = DagTopology.from_edges(3, [(0, 1), (1, 2)])
    with pytest.raises(ValueError, match=r"^topologies\[1\].mode: expected 'P', got 'D'"):
        DagTopology.batch([chain, chain.with_mode("D")])
    with pytest.raises(ValueError, match=r"^topologies\[1\].lines_given: expected False as for the first"):
        DagTopology.batch([chain, DagTopology.from_line_edges(2, [(0, 1)], [])])
    with pytest.raises(TypeError, match=r"^topologies\[1\]: expected a DagTopology, got list"):
        DagTopology.batch([chain, []])
