"""Graphs of other libraries."""

import sys
from subprocess import run

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp

from plstm_config.topology import DagTopology

EDGES = [(2, 0), (0, 1), (2, 1), (1, 3)]


@pytest.mark.parametrize("mode", ["P", "D"])
def test_networkx(mode) -> None:
    graph = nx.DiGraph()
    graph.add_nodes_from("dcba")
    graph.add_edges_from([("d", "a"), ("b", "d"), ("c", "a")])
    topology = DagTopology.from_networkx(graph, mode)
    assert topology.mode == mode
    assert topology.num_nodes == 4
    assert [["dcba"[node] for node in edge] for edge in topology.edges] == [["c", "a"], ["b", "d"], ["d", "a"]]
    listed = list(graph.edges)
    assert [listed[i] for i in topology.edge_order] == [("c", "a"), ("b", "d"), ("d", "a")]


def test_undirected_networkx() -> None:
    topology = DagTopology.from_networkx(nx.cycle_graph(4))
    assert sorted(topology.edges.tolist()) == [[0, 1], [0, 3], [1, 2], [2, 3]]


def test_networkx_refusals() -> None:
    with pytest.raises(TypeError, match=r"^graph: expected a networkx graph, got list"):
        DagTopology.from_networkx([(0, 1)])
    with pytest.raises(ValueError, match=r"^graph: expected a graph without multiple edges, got MultiDiGraph"):
        DagTopology.from_networkx(nx.MultiDiGraph([(0, 1)]))


@pytest.mark.parametrize("form", [sp.csr_array, sp.coo_array, sp.csc_matrix])
def test_scipy(form) -> None:
    tails, heads = np.array(EDGES).T
    matrix = form(sp.coo_array((np.ones(4), (tails, heads)), shape=(5, 5)))
    topology = DagTopology.from_scipy(matrix)
    assert topology.num_nodes == 5
    assert topology.edges.tolist() == [[2, 0], [2, 1], [0, 1], [1, 3]]
    entries = matrix.tocoo()
    assert np.array_equal(np.stack([entries.row, entries.col], 1)[topology.edge_order], topology.edges)
    both = DagTopology.from_scipy(form(matrix + matrix.T), "D", undirected=True)
    assert sorted(both.edges.tolist()) == [[0, 1], [0, 2], [1, 2], [1, 3]]
    assert both.num_input_edges == 8


def test_scipy_refusals() -> None:
    with pytest.raises(TypeError, match=r"^matrix: expected a scipy sparse matrix, got ndarray"):
        DagTopology.from_scipy(np.eye(3))
    with pytest.raises(ValueError, match=r"^matrix: expected \[N,N\], got \(2, 3\)"):
        DagTopology.from_scipy(sp.coo_array((2, 3)))


def test_edge_index() -> None:
    topology = DagTopology.from_edge_index(4, np.array(EDGES).T, "D")
    assert np.array_equal(topology.edges, DagTopology.from_edges(4, EDGES, "D").edges)
    assert DagTopology.from_edge_index(2, np.array([[1, 0], [0, 1]]), undirected=True).edges.tolist() == [[0, 1]]
    with pytest.raises(ValueError, match=r"^edge_index: expected \[2,E\], got \(4, 2\)"):
        DagTopology.from_edge_index(4, EDGES)
    with pytest.raises(TypeError, match=r"^edges: expected integers, got float64"):
        DagTopology.from_edge_index(4, np.array(EDGES).T * 1.0)


def test_importing_needs_neither_library() -> None:
    code = "import sys, plstm_config.topology; sys.exit(bool({'networkx', 'scipy'} & set(sys.modules)))"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
