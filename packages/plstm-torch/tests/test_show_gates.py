"""What a node hears on a graph of one's own: numbers against gradients of the op, and pictures."""

import numpy as np
import pytest
import torch

from plstm_config import pLSTMGraphModelConfig
from plstm_config.topology import DagTopology
from plstm_testing.tolerances import assert_close
from plstm_torch import build
from plstm_torch.ops import plstm_graph
from plstm_torch.show_gates import gates_figure, graph_gates, layered_places, near_nodes

EDGES = [(0, 2), (1, 2), (2, 3), (2, 4), (3, 5), (4, 5), (5, 6), (7, 6)]


def model(edge_dim=0, blocks=2):
    torch.manual_seed(0)
    sizes = {"dim": 8, "num_heads": 2, "num_blocks": blocks, "output_dim": 2, "pooling": "none"}
    built = build(pLSTMGraphModelConfig(input_dim=3, edge_input_dim=edge_dim, **sizes)).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.normal_(std=0.4)
    return built


def by_gradient(gates, node):
    """The response of the node to an impulse at each other, since the op is linear in its values."""
    heads, nodes = gates.direct.shape
    value = torch.zeros(heads, nodes, 1, dtype=torch.float64, requires_grad=True)
    ones = torch.ones_like(value)
    given = [gate.double() for gate in (gates.source, gates.transition, gates.mark)]
    output = plstm_graph(ones, ones, value, *given, torch.zeros_like(ones[..., 0]), gates.topology)
    (gradient,) = torch.autograd.grad(output[:, node].sum(), value)
    return gradient[..., 0]


@pytest.mark.parametrize("edge_dim", [0, 2])
def test_what_is_heard_is_a_row_of_the_gating_matrix_of_each_layer(edge_dim):
    x, edge_attr = torch.randn(9, 3), torch.randn(len(EDGES), 2) if edge_dim else None
    topology = DagTopology.from_edges(9, EDGES)
    found = graph_gates(model(edge_dim), x, topology, edge_attr, node=5)
    assert [hearing.topology.mode for hearing in found] == ["P", "D", "P", "D"]
    assert found[0].layer == "block_stack.blocks.0.block0.interaction_module"
    for hearing in found:
        assert_close(hearing.nodes, by_gradient(hearing.gates, 5), "float64", "output", hearing.layer)
        assert hearing.edges.shape == (2, len(EDGES))
    assert found[0].nodes.abs().amax(0).nonzero().flatten().tolist() == [0, 1, 2, 3, 4]
    assert found[2].nodes.abs().amax(0).nonzero().flatten().tolist() == [6]  # against the edges


def test_a_model_runs_as_before_afterwards():
    network, x = model(), torch.randn(9, 3)
    before = network(x, torch.tensor(EDGES).T)
    graph_gates(network, x, torch.tensor(EDGES).T, node=0)
    assert torch.equal(network(x, torch.tensor(EDGES).T), before)
    assert not any(module._forward_pre_hooks for module in network.modules())


# warnings of torch about itself
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch._prims_common.check.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("compiled", ["model", "blocks", "around"])
def test_compiled_models_are_looked_into_too(compiled):
    torch.compiler.reset()
    plain, network, x = model(), model(), torch.randn(9, 3)
    for part in {"model": [network], "blocks": network.block_stack.blocks, "around": []}[compiled]:
        part.compile(backend="eager")
    given = torch.compile(network, backend="eager") if compiled == "around" else network
    topology = DagTopology.from_edges(9, EDGES)
    given(x, topology)
    for one, other in zip(
        graph_gates(given, x, topology, node=5), graph_gates(plain, x, topology, node=5), strict=True
    ):
        assert torch.equal(one.nodes, other.nodes)


def test_nodes_around_one_are_taken_nearest_first():
    topology = DagTopology.from_edges(9, EDGES)
    assert near_nodes(topology, 5, 4).tolist() == [3, 4, 5, 6]
    assert near_nodes(topology, 8, 4).tolist() == [8]
    assert near_nodes(topology, 0, 100).tolist() == list(range(8))


def test_edges_lead_to_the_right_and_no_two_nodes_share_a_place():
    topology = DagTopology.from_edges(9, EDGES)
    places = layered_places(topology)
    assert (places[topology.head, 0] > places[topology.tail, 0]).all()
    assert len(np.unique(places, axis=0)) == 9


def test_the_picture_has_a_panel_for_each_layer_and_head(tmp_path):
    names = [f"n{number}" for number in range(9)]
    figure = gates_figure(model(), torch.randn(9, 3), torch.tensor(EDGES).T, node=5, largest=6, labels=names)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert len(titles) == 8
    assert titles[0].endswith("P, head 0")
    assert "What node n5 hears" in figure.get_suptitle()
    assert "6 of 9 nodes" in figure.get_suptitle()
    figure.savefig(tmp_path / "gates.png")
    assert (tmp_path / "gates.png").stat().st_size > 10_000


def test_names_of_nodes_are_no_formulas():
    names = [r"$\frac$"] * 9
    gates_figure(model(blocks=1), torch.randn(9, 3), torch.tensor(EDGES).T, node=5, labels=names).canvas.draw()


def test_a_graph_without_edges_has_a_picture():
    gates_figure(model(blocks=1), torch.randn(2, 3), DagTopology.from_edges(2, []), node=1).canvas.draw()


def test_what_makes_no_sense_is_named():
    with pytest.raises(TypeError, match=r"^model: expected one with layers on graphs, got Linear"):
        graph_gates(torch.nn.Linear(3, 2), torch.randn(2, 3), DagTopology.from_edges(2, []), node=0)
    for node in (2, -1):
        with pytest.raises(ValueError, match=rf"^node: expected a node from 0 to 1, got {node}"):
            graph_gates(model(), torch.randn(2, 3), DagTopology.from_edges(2, []), node=node)
    for node in (True, 1.0, "1", torch.tensor(1)):
        with pytest.raises(TypeError, match=r"^node: expected an integer, got "):
            graph_gates(model(), torch.randn(2, 3), DagTopology.from_edges(2, []), node=node)
    with pytest.raises(ValueError, match=r"^largest: expected at least 1, got 0"):
        gates_figure(model(), torch.randn(2, 3), DagTopology.from_edges(2, []), node=0, largest=0)
    with pytest.raises(ValueError, match=r"^labels: expected one for each of N=2 nodes, got 1"):
        gates_figure(model(), torch.randn(2, 3), DagTopology.from_edges(2, []), node=0, labels=["a"])
