"""What the graph layers refuse, by messages that say what they expect."""

import pytest
import torch

from plstm_config import pLSTMGraphEdgeLayerConfig, pLSTMGraphLayerConfig
from plstm_config.topology import DagTopology
from plstm_torch.build import build

EDGES = [(3, 5), (0, 1), (0, 2), (6, 3), (2, 3), (1, 3), (3, 4), (4, 5), (0, 3)]


def node_layer(max_edges=4):
    return build(pLSTMGraphLayerConfig(input_dim=6, num_heads=2, max_edges=max_edges))


def edge_layer():
    return build(pLSTMGraphEdgeLayerConfig(input_dim=6, num_heads=2, edge_input_dim=3))


def edge_index(edges=EDGES):
    return torch.tensor(edges).T


ERRORS = {
    "rank": ({"x": torch.zeros(8, 2, 6)}, ValueError, r"^x: expected \[N, D\] with D=6, got \[8, 2, 6\]"),
    "width": ({"x": torch.zeros(8, 5)}, ValueError, r"^x: expected \[N, D\] with D=6, got \[8, 5\]"),
    "graph_type": ({"graph": EDGES}, TypeError, r"^graph: expected a DagTopology or an edge_index \[2,E\], got list"),
    "graph_size": (
        {"graph": DagTopology.from_edges(9, EDGES)},
        ValueError,
        r"^graph: expected a graph of N=8 nodes, as many as x has, got 9",
    ),
    "edge_index_shape": ({"graph": torch.tensor(EDGES)}, ValueError, r"^edge_index: expected \[2,E\], got \(9, 2\)"),
    "edge_index_dtype": ({"graph": edge_index() * 1.0}, TypeError, r"^edges: expected integers, got float32"),
    "cycle": ({"graph": edge_index([(0, 1), (1, 0)])}, ValueError, r"^edges: expected no cycle, got \("),
    "node": ({"graph": edge_index([(0, 8)])}, ValueError, r"^edges: expected nodes from 0 to N-1=7, got \(0, 8\)"),
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("kind", ["node", "edge"])
def test_wrong_input(kind, name):
    module, edge_attr = (node_layer(), None) if kind == "node" else (edge_layer(), torch.zeros(9, 3))
    changes, error, message = ERRORS[name]
    with pytest.raises(error, match=message):
        module(**{"x": torch.zeros(8, 6), "graph": edge_index(), "edge_attr": edge_attr, **changes})


@pytest.mark.parametrize(
    ("edge_attr", "message"),
    [
        (None, r"^edge_attr: expected edge features \[E, De\] with De=3, got None"),
        (torch.zeros(9, 2), r"^edge_attr: expected \[E, De\] with De=3, got \[9, 2\]"),
        (torch.zeros(8, 3), r"^edge_attr: expected one row for each of the E=9 edges, got 8"),
    ],
)
def test_wrong_edge_features(edge_attr, message):
    module = edge_layer()
    with pytest.raises(ValueError, match=message):
        module(torch.zeros(8, 6), edge_index(), edge_attr)


def test_node_gates_take_no_edge_features():
    with pytest.raises(ValueError, match=r"^edge_attr: expected None, since gates are made from nodes, got \[9, 3\]"):
        node_layer()(torch.zeros(8, 6), edge_index(), torch.zeros(9, 3))


@pytest.mark.parametrize(("turn", "way"), [(False, "into"), (True, "out of")])
def test_too_many_edges_name_the_node(turn, way):
    module = node_layer(max_edges=3)
    graph = edge_index([edge[::-1] for edge in EDGES] if turn else EDGES)
    with pytest.raises(
        ValueError, match=rf"^graph: expected at most max_edges=3 edges {way} a node, got 4 {way} node 3"
    ):
        module(torch.zeros(8, 6), graph)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (pLSTMGraphLayerConfig(input_dim=6), r"^max_edges: expected an integer >= 1, got -1"),
        (pLSTMGraphLayerConfig(max_edges=2), r"^input_dim: expected an integer >= 1, got -1"),
        (pLSTMGraphEdgeLayerConfig(input_dim=6), r"^edge_input_dim: expected an integer >= 0, got -1"),
    ],
)
def test_open_sizes(config, message):
    with pytest.raises(ValueError, match=message):
        build(config)
