"""A topology keeps a canonical order, whatever the order of its input."""

import copy
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plstm_config import shapes
from plstm_config.topology import DagTopology, direct_edges

DIAMOND = [(2, 3), (0, 1), (0, 2), (1, 3), (3, 4)]
ARRAYS = ("edges", "line_edges", "edge_order", "node_ptr")


def same(first: DagTopology, second: DagTopology, *but: str) -> bool:
    kept = [name for name in ARRAYS if name not in but]
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in kept)


def test_edges_and_line_edges_of_a_diamond() -> None:
    topology = DagTopology.from_edges(5, DIAMOND)
    assert topology.edges.tolist() == [[0, 1], [0, 2], [1, 3], [2, 3], [3, 4]]
    assert topology.edge_order.tolist() == [1, 2, 3, 0, 4]
    assert topology.line_edges.tolist() == [[0, 2], [1, 3], [2, 4], [3, 4]]
    assert topology.levels.tolist() == [0, 0, 1, 1, 2]
    assert topology.in_slot.tolist() == [0, 0, 0, 1, 0]
    assert topology.out_slot.tolist() == [0, 1, 0, 0, 0]
    assert topology.in_degree.tolist() == [0, 1, 1, 2, 1]
    assert topology.out_degree.tolist() == [2, 1, 1, 1, 0]


@given(st.data())
def test_edges_are_topological_and_know_where_they_came_from(dags, data) -> None:
    size, edges = data.draw(dags())
    for mode in ("P", "D"):
        topology = DagTopology.from_edges(size, edges, mode)
        assert topology.num_input_edges == len(edges)
        assert np.array_equal(np.array(edges, int).reshape(-1, 2)[topology.edge_order], topology.edges)
        tails, heads = topology.edges.T
        follows = heads[:, None] == tails
        assert not np.tril(follows).any()  # in P-mode's full line graph, also where D-mode pruned
        incoming, outgoing = topology.line_edges.T
        assert (heads[incoming] == tails[outgoing]).all()


@given(st.data())
def test_the_order_of_the_input_does_not_matter_in_p_mode(dags, data) -> None:
    size, edges = data.draw(dags())
    shuffled = data.draw(st.permutations(edges))
    first, second = DagTopology.from_edges(size, edges), DagTopology.from_edges(size, shuffled)
    assert same(first, second, "edge_order")
    assert [edges[i] for i in first.edge_order] == [shuffled[i] for i in second.edge_order]


@given(st.data())
def test_a_relabelling_that_keeps_the_order_changes_labels_only(dags, data) -> None:
    size, edges = data.draw(dags())
    labels = np.array(sorted(data.draw(st.sets(st.integers(0, 40), min_size=size, max_size=size))), int)
    for mode in ("P", "D"):
        first = DagTopology.from_edges(size, edges, mode)
        second = DagTopology.from_edges(41, [(labels[a], labels[b]) for a, b in edges], mode)
        assert np.array_equal(labels[first.edges], second.edges)
        assert same(first, second, "edges", "node_ptr")


@given(st.data())
def test_slots_number_the_edges_of_a_node(dags, data) -> None:
    topology = DagTopology.from_edges(*data.draw(dags()))
    for slot, degree, side in ((topology.out_slot, topology.out_degree, 0), (topology.in_slot, topology.in_degree, 1)):
        for node in range(topology.num_nodes):
            assert slot[topology.edges[:, side] == node].tolist() == list(range(degree[node]))


@given(st.data())
def test_reverse_is_building_from_turned_edges(dags, data) -> None:
    size, edges = data.draw(dags())
    for mode in ("P", "D"):
        topology = DagTopology.from_edges(size, edges, mode)
        assert same(topology.reverse(), DagTopology.from_edges(size, [edge[::-1] for edge in edges], mode))
        assert same(topology.reverse().reverse(), topology)
        assert topology.reverse() is topology.reverse()


@given(st.data())
def test_with_mode_is_building_in_that_mode(dags, data) -> None:
    size, edges = data.draw(dags())
    topologies = {mode: DagTopology.from_edges(size, edges, mode) for mode in ("P", "D")}
    for mode, topology in topologies.items():
        assert topology.with_mode(mode) is topology
        for other in ("P", "D"):
            assert same(topology.with_mode(other), topologies[other])
            assert topology.with_mode(other).mode == other
            assert topology.with_mode(other) is topology.with_mode(other)


def test_undirected_edges_point_upwards() -> None:
    both_ways = [(3, 1), (0, 1), (1, 3), (2, 3), (1, 0), (3, 2)]
    topology = DagTopology.from_edges(4, both_ways, undirected=True)
    assert topology.edges.tolist() == [[0, 1], [1, 3], [2, 3]] or topology.edges.tolist() == [[0, 1], [2, 3], [1, 3]]
    assert sorted(topology.edge_order) == [0, 1, 3]
    assert topology.num_input_edges == 6
    directed, positions = direct_edges(both_ways)
    assert directed.tolist() == [[1, 3], [0, 1], [2, 3]]
    assert positions.tolist() == [0, 1, 3]
    reverse = topology.reverse()
    assert sorted(map(tuple, reverse.edges.tolist())) == [(1, 0), (3, 1), (3, 2)]
    assert sorted(reverse.edge_order) == [0, 1, 3]


@given(st.data())
def test_directing_keeps_the_first_of_two_opposite_edges(data) -> None:
    pairs = data.draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), unique=True).map(
        lambda edges: [edge for edge in edges if edge[0] != edge[1]]
    ))  # fmt: skip
    expected: dict[tuple[int, int], int] = {}
    for position, (a, b) in enumerate(pairs):
        expected.setdefault((min(a, b), max(a, b)), position)
    directed, positions = direct_edges(pairs)
    assert dict(zip(map(tuple, directed.tolist()), positions.tolist(), strict=True)) == expected


def test_given_line_edges_are_kept() -> None:
    topology = DagTopology.from_line_edges(5, DIAMOND, [(3, 4), (1, 3)])
    named = topology.edges[topology.line_edges].tolist()
    assert named == [[[0, 1], [1, 3]], [[1, 3], [3, 4]]]
    assert topology.lines_given
    turned = topology.reverse()
    assert sorted(turned.edges[turned.line_edges].tolist()) == [[[3, 1], [1, 0]], [[4, 3], [3, 1]]]
    assert np.array_equal(np.array(DIAMOND)[turned.edge_order][:, ::-1], turned.edges)
    assert topology.with_mode("D").mode == "D"
    assert same(topology.with_mode("D"), topology)


def test_given_line_edges_of_d_mode_are_a_multitree() -> None:
    every = [(0, 4), (1, 3), (2, 0), (3, 4)]
    with_two_sources = DagTopology.from_line_edges(5, DIAMOND, every, "D")
    assert with_two_sources.is_multitree
    edges = [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (4, 5)]
    lines = [(0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 5)]
    message = r"^line_edges: expected a multitree for mode 'D', got a second path through \(3, 4\) and \(4, 5\)"
    with pytest.raises(ValueError, match=message):
        DagTopology.from_line_edges(6, edges, lines, "D")
    with pytest.raises(ValueError, match=message):
        DagTopology.from_line_edges(6, edges, lines, "P").with_mode("D")


@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.parametrize("edges", [[], np.zeros((0, 2), int), np.zeros((0, 2))])
@pytest.mark.parametrize("mode", ["P", "D"])
def test_no_edges(size, edges, mode) -> None:
    topology = DagTopology.from_edges(size, edges, mode)
    assert topology.edges.shape == topology.line_edges.shape == (0, 2)
    assert topology.num_graphs == 1
    assert topology.levels.shape == (0,)
    assert topology.is_multitree
    assert topology.in_degree.tolist() == [0] * size
    assert same(topology.reverse(), topology)


def test_arrays_are_copied() -> None:
    pairs = np.array(DIAMOND)
    topology = DagTopology.from_edges(5, pairs)
    copied = DagTopology(**{part: getattr(topology, part) for part in topology.__dataclass_fields__})
    pairs[:] = 0
    topology.edges[:] = 0
    assert copied.edges.max() == 4


def test_identity_and_copies() -> None:
    topology = DagTopology.from_edges(5, DIAMOND, "D")
    twin = DagTopology.from_edges(5, DIAMOND, "D")
    assert topology != twin
    assert {topology: 1}.get(twin) is None
    assert topology.schedule is topology.schedule
    for copied in (copy.deepcopy(topology), copy.copy(topology), pickle.loads(pickle.dumps(topology))):
        assert same(copied, topology)
        assert copied.mode == "D"


def test_the_ops_accept_it_and_know_its_nodes() -> None:
    topology = DagTopology.from_edges(5, DIAMOND)
    sizes = {"H": 2, "N": 5, "E": 5, "L": 4, "DK": 3, "DV": 2}
    arrays = {
        name: SimpleNamespace(shape=tuple(sizes[letter] for letter in layout))
        for name, layout in shapes.PLSTM_GRAPH.items()
    }
    assert sizes.items() <= shapes.check_plstm_graph(**arrays, topology=topology).items()
    arrays["query"] = SimpleNamespace(shape=(2, 6, 3))
    with pytest.raises(ValueError, match=r"^query: expected \[H=2, N=5, DK=3\], got \(2, 6, 3\)"):
        shapes.check_plstm_graph(**arrays, topology=topology)


@pytest.mark.parametrize("mode", ["P", "D"])
@pytest.mark.parametrize("shape", ["chain", "comb", "random"])
def test_a_hundred_thousand_edges(shape, mode) -> None:
    """No recursion, and nothing that grows with the square of the edges."""
    random = np.random.default_rng(0)
    count = 100_000
    steps = np.stack([np.arange(count // 2), np.arange(1, count // 2 + 1)], axis=1)
    edges = {
        "chain": np.stack([np.arange(count), np.arange(1, count + 1)], axis=1),
        "comb": np.concatenate([steps, steps + np.array([count // 2 + 1, 0])]),
        "random": np.unique(np.sort(random.integers(0, count, (count, 2)), axis=1), axis=0),
    }[shape]
    edges = edges[edges[:, 0] != edges[:, 1]]
    topology = DagTopology.from_edges(count + 1, edges, mode)
    assert len(topology.edges) == len(edges)
    assert topology.schedule.num_levels == {"chain": count, "comb": count // 2}.get(shape, topology.levels.max() + 1)
    assert len(topology.reverse().edges) == len(edges)
