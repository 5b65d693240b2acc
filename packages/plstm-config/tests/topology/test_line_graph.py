"""The line graph, the pruning and the levels agree with networkx."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plstm_config.topology import DagTopology, is_multitree, level_schedule, line_graph, prune_to_multitree


@given(st.data())
def test_p_mode_joins_what_follows(dags, as_networkx, named_lines, data) -> None:
    graph = size, edges = data.draw(dags())
    expected = set(nx.line_graph(as_networkx(graph)).edges)
    assert named_lines(np.array(edges).reshape(-1, 2), line_graph(size, edges)) == expected
    topology = DagTopology.from_edges(size, edges, "P")
    assert named_lines(topology.edges, topology.line_edges) == expected
    assert len(topology.line_edges) == len(expected)


@given(st.data())
def test_d_mode_keeps_what_its_definition_keeps(dags, pruned, named_lines, data) -> None:
    graph = size, edges = data.draw(dags())
    expected = pruned(graph)
    assert named_lines(np.array(edges).reshape(-1, 2), prune_to_multitree(size, edges)) == expected
    topology = DagTopology.from_edges(size, edges, "D")
    assert named_lines(topology.edges, topology.line_edges) == expected
    assert topology.is_multitree


@given(st.data())
def test_turning_around_prunes_anew(dags, pruned, named_lines, data) -> None:
    size, edges = data.draw(dags())
    topology = DagTopology.from_edges(size, edges, "D").reverse()
    assert named_lines(topology.edges, topology.line_edges) == pruned((size, [edge[::-1] for edge in edges]))


@given(st.data())
def test_a_second_path_is_found(dags, as_networkx, data) -> None:
    size, edges = data.draw(dags())
    topology = DagTopology.from_edges(size, edges, "P")
    chosen = data.draw(st.lists(st.booleans(), min_size=len(topology.line_edges), max_size=len(topology.line_edges)))
    lines = topology.line_edges[np.array(chosen, bool)]
    graph = as_networkx((len(edges), lines.tolist()))
    paths = np.zeros((len(edges), len(edges)), int)
    for edge in nx.topological_sort(graph):
        paths[edge, edge] = 1
        for earlier in graph.predecessors(edge):
            paths[edge] += paths[earlier]
    assert is_multitree(len(edges), lines) == bool((paths <= 1).all())


@given(st.data())
def test_levels_are_longest_paths(dags, as_networkx, data) -> None:
    size, edges = data.draw(dags())
    for mode in ("P", "D"):
        topology = DagTopology.from_edges(size, edges, mode)
        graph = as_networkx((len(edges), topology.line_edges.tolist()))
        for level, members in enumerate(nx.topological_generations(graph)):
            assert (topology.levels[members] == level).all()


@given(st.data())
def test_the_schedule_groups_edges_by_level(dags, data) -> None:
    parts = [DagTopology.from_edges(*data.draw(dags()), "D") for _ in range(data.draw(st.integers(1, 3)))]
    topology = DagTopology.batch(parts)
    schedule = topology.schedule
    assert sorted(schedule.edges) == list(range(len(topology.edges)))
    assert sorted(schedule.lines) == list(range(len(topology.line_edges)))
    assert schedule.edge_ptr[-1] == len(topology.edges)
    assert schedule.line_ptr[-1] == len(topology.line_edges)
    for level in range(schedule.num_levels):
        members = schedule.edges[schedule.edge_ptr[level] : schedule.edge_ptr[level + 1]]
        assert len(members)
        assert (schedule.levels[members] == level).all()
        entering = schedule.lines[schedule.line_ptr[level] : schedule.line_ptr[level + 1]]
        incoming, outgoing = topology.line_edges[entering].T
        assert set(outgoing) == (set(members) if level else set())
        assert (schedule.levels[incoming] < level).all()


def test_many_predecessors_count_as_few() -> None:
    """A hub with more incoming edges than are looked at one by one, behind a chain."""
    edges = [(0, 1), (1, 2), *[(node, 50) for node in range(2, 50)], (50, 51)]
    assert DagTopology.from_edges(52, edges).levels.tolist() == [*[0] * 48, 1, 2, 3]


def test_an_empty_schedule_has_no_levels() -> None:
    assert level_schedule(0, []).num_levels == 0
    assert level_schedule(3, []).num_levels == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([(0, 2)], r"^line_edges: expected pairs \(earlier, later\) of 2 edges, got \(0, 2\)"),
        ([(1, 0)], r"^line_edges: expected pairs \(earlier, later\) of 2 edges, got \(1, 0\)"),
        ([(0, 1), (-1, 0)], r"^line_edges: .* got \(-1, 0\)"),
    ],
)
def test_is_multitree_refuses_other_pairs(lines, message) -> None:
    with pytest.raises(ValueError, match=message):
        is_multitree(2, lines)
