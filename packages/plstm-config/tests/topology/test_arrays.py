"""Index arrays of topologies, and of what is given in their place."""

from types import SimpleNamespace

import numpy as np
import pytest

from plstm_config.topology import DagTopology
from plstm_config.topology.arrays import index_arrays

EDGES = [(0, 1), (0, 2), (1, 3), (2, 3)]


def test_every_array_of_a_batch():
    topology = DagTopology.batch([DagTopology.from_edges(4, EDGES), DagTopology.from_edges(2, [(0, 1)])])
    expected = {
        "tail": [0, 0, 1, 2, 4],
        "head": [1, 2, 3, 3, 5],
        "incoming": [0, 1],
        "outgoing": [2, 3],
        "in_slot": [0, 0, 0, 1, 0],
        "out_slot": [0, 1, 0, 0, 0],
        "in_degree": [0, 1, 1, 2, 0, 1],
        "out_degree": [2, 1, 1, 0, 1, 0],
        "node_graph": [0, 0, 0, 0, 1, 1],
        "first_node": [0, 0, 0, 0, 4, 4],
        "node_position": [0, 1, 2, 3, 0, 1],
        "edge_graph": [0, 0, 0, 0, 1],
        "edge_position": [0, 1, 2, 3, 0],
        "line_edge_graph": [0, 0],
        "graph_sizes": [4, 2],
        "levels": [0, 0, 1, 1, 0],
    }
    assert {name: getattr(topology, name).tolist() for name in expected} == expected


def test_what_is_given_has_the_same_arrays():
    topology = DagTopology.from_edges(4, EDGES)
    given = SimpleNamespace(edges=topology.edges.astype(np.int32), line_edges=topology.line_edges.tolist())
    arrays = index_arrays(given, 4)
    assert index_arrays(topology, 4) is topology
    for name in ("tail", "outgoing", "in_slot", "out_degree", "levels", "first_node", "node_position", "edge_position"):
        found = getattr(arrays, name)
        assert np.array_equal(found, getattr(topology, name)), name
        assert found.dtype == np.int64, name


def test_given_edges_may_repeat_but_not_turn_back():
    twice = SimpleNamespace(edges=[(0, 1), (0, 1), (1, 2)], line_edges=[(0, 2), (1, 2)])
    assert index_arrays(twice, 3).in_slot.tolist() == [0, 1, 0]
    wrong = SimpleNamespace(edges=[(0, 1), (1, 2)], line_edges=[(1, 0)])
    with pytest.raises(ValueError, match=r"topology.line_edges: expected pairs \(earlier, later\)"):
        index_arrays(wrong, 3)
