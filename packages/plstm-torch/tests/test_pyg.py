"""PyTorch Geometric: what its users write, and that batches of it equal graphs one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plstm_config import pLSTMGraphLayerConfig, pLSTMGraphModelConfig
from plstm_config.topology import DagTopology
from plstm_testing.tolerances import assert_close
from plstm_torch import build

pytest.importorskip("torch_geometric")

from torch_geometric.data import Batch, Data, InMemoryDataset
from torch_geometric.loader import DataLoader

from plstm_torch import pyg
from plstm_torch.pyg import AddTopology, FromBatch, batch_topology, pLSTMConv

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch_geometric")


def both_ways(edges):
    pairs = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T
    return torch.cat([pairs, pairs.flip(0)], 1)


def molecule(num_nodes, edges):
    edge_index = both_ways(edges)
    features = torch.randn(len(edges), 2).repeat(2, 1)
    return Data(x=torch.randn(num_nodes, 3), edge_index=edge_index, edge_attr=features)


@pytest.fixture
def molecules():
    torch.manual_seed(0)
    shapes = [(4, [(0, 1), (2, 1), (1, 3), (3, 2)]), (2, []), (3, [(0, 2), (1, 0)])]
    return [AddTopology(undirected=True)(molecule(*shape)) for shape in shapes]


def same(actual, expected, kind="output"):
    assert_close(actual.detach(), expected.detach(), "float32", kind, "result")


def randomize(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.4)
    return module


def test_a_loader_feeds_a_model(molecules):
    config = pLSTMGraphModelConfig(
        input_dim=3, edge_input_dim=2, dim=16, num_heads=2, output_dim=5, dtype="float32", num_blocks=2
    )
    model = randomize(FromBatch(build(config)))
    loader = DataLoader(molecules, batch_size=3)
    logits = [model(batch) for batch in loader]
    assert logits[0].shape == (3, 5)
    same(logits[0], torch.cat([model(data) for data in molecules]))
    logits[0].sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_batches_move_every_index(molecules):
    topology = batch_topology(Batch.from_data_list(molecules))
    assert topology.num_graphs == 3
    assert topology.num_nodes == 9
    assert topology.num_input_edges == 12
    assert topology.edges.max() == 8
    assert topology.edge_order.tolist() == [0, 1, 7, 3, 8, 9] or len(topology.edge_order) == 6
    parts = [batch_topology(data) for data in molecules]
    assert topology.edges[4:].tolist() == (parts[2].edges + 6).tolist()
    assert topology.edge_order[4:].tolist() == (parts[2].edge_order + 8).tolist()


def test_the_transform_names_itself_and_keeps_directed_graphs():
    assert repr(AddTopology("D", undirected=True)) == "AddTopology(mode='D', undirected=True)"
    data = Data(x=torch.zeros(3, 1), edge_index=torch.tensor([[2, 1], [1, 0]]))
    assert batch_topology(AddTopology()(data)).edges.tolist() == [[2, 1], [1, 0]]
    assert batch_topology(AddTopology(undirected=True)(data)).edges.tolist() == [[0, 1], [1, 2]]
    pruned = batch_topology(AddTopology("D")(data))
    assert (pruned.mode, pruned.line_edges.tolist()) == ("D", [[0, 1]])


def test_a_processed_dataset_holds_tensors_and_no_pickled_objects(tmp_path, molecules):
    class Molecules(InMemoryDataset):
        processed_file_names = ("data.pt",)

        def process(self):
            self.save([self.pre_transform(data) for data in molecules], self.processed_paths[0])

    dataset = Molecules(str(tmp_path), pre_transform=AddTopology(undirected=True))
    stored, *_ = torch.load(dataset.processed_paths[0], weights_only=True)
    assert stored["topology_edges"].shape == (sum(len(batch_topology(data).edges) for data in molecules), 2)
    dataset.load(dataset.processed_paths[0])
    for data, own in zip(dataset, molecules, strict=True):
        again, expected = batch_topology(data), batch_topology(own)
        for name in ("edges", "line_edges", "edge_order"):
            assert getattr(again, name).tolist() == getattr(expected, name).tolist()


def test_a_batch_without_topologies_is_refused():
    data = Data(x=torch.zeros(3, 1), edge_index=torch.zeros(2, 0, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"^data: expected the transform AddTopology"):
        batch_topology(Batch.from_data_list([data]))


def test_a_directed_edge_sends_from_its_tail_to_its_head():
    torch.manual_seed(0)
    layer = randomize(pLSTMConv(3, 8, heads=2, dtype="float32"))
    x, edge_index = torch.randn(6, 3, requires_grad=True), torch.tensor([[5], [2]])
    (reached,) = torch.autograd.grad(layer(x, edge_index)[2].sum(), x)
    assert reached[5].abs().max() > 0
    (reached,) = torch.autograd.grad(layer(x, edge_index)[5].sum(), x)
    assert reached[2].abs().max() == 0


@pytest.mark.parametrize(
    ("edges", "undirected", "message"),
    [
        ([(0, 1), (1, 0)], False, r"^edges: .* in the cycle 0 -> 1 -> 0; .* say undirected=True"),
        ([(0, 1), (1, 2), (2, 0)], False, "cycle"),
        ([(1, 1)], False, r"^edges: expected no self loop, got \(1, 1\) .*drop self loops"),
        ([(0, 1), (1, 1)], True, r"^edges: expected no self loop, got \(1, 1\)"),
    ],
)
def test_edges_that_make_no_dag_name_the_remedy(edges, undirected, message):
    edge_index = torch.tensor(edges).T
    with pytest.raises(ValueError, match=message):
        pLSTMConv(3, 8, undirected=undirected)(torch.randn(3, 3), edge_index)
    with pytest.raises(ValueError, match=message):
        AddTopology(undirected=undirected)(Data(x=torch.zeros(3, 1), edge_index=edge_index))


def test_a_graph_model_names_the_remedies_alike():
    config = pLSTMGraphModelConfig(input_dim=3, output_dim=2, dim=8, num_blocks=1, max_edges=2)
    model, x = build(config), torch.randn(4, 3)
    symmetric = both_ways([(0, 1), (1, 2)])
    with pytest.raises(ValueError, match=r"^edges: .* say undirected=True where its topology is made"):
        model(x, symmetric)
    assert model(x, DagTopology.from_edge_index(4, symmetric.numpy(), undirected=True)).shape == (1, 2)
    with pytest.raises(ValueError, match=r"^edges: expected no self loop, .*drop self loops"):
        model(x, torch.tensor([[1], [1]]))
    with pytest.raises(ValueError, match=r"^graph: .* max_edges=2 .* got 3 out of node 0; raise max_edges, or "):
        model(x, torch.tensor([[0, 0, 0], [1, 2, 3]]))


def test_every_entry_says_what_becomes_of_directions():
    for entry in (pyg, pLSTMConv):
        assert "direction" in entry.__doc__.splitlines()[0]


@pytest.mark.parametrize("edge_dim", [None, 2])
@pytest.mark.parametrize("mode", ["P", "D"])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_layer_takes_what_convolutions_take(molecules, edge_dim, mode, reverse):
    layer = randomize(
        pLSTMConv(3, 8, heads=2, edge_dim=edge_dim, mode=mode, reverse=reverse, undirected=True, dtype="float32")
    )
    batch = Batch.from_data_list(molecules)
    edge_attr = batch.edge_attr if edge_dim else None
    output = layer(batch.x, batch.edge_index, edge_attr, batch.batch)
    assert output.shape == (9, 8)
    same(layer(batch.x, batch.edge_index, edge_attr), output)
    same(layer(batch.x, batch_topology(batch), edge_attr), output)
    one_by_one = [layer(data.x, data.edge_index, data.edge_attr if edge_dim else None) for data in molecules]
    same(torch.cat(one_by_one), output)


def test_the_layer_refuses_what_makes_no_sense(molecules):
    layer = pLSTMConv(3, 8, heads=2, undirected=True)
    batch = Batch.from_data_list(molecules)
    with pytest.raises(ValueError, match=r"^batch: expected \[N=9\], got \(8,\)"):
        layer(batch.x, batch.edge_index, batch=batch.batch[1:])
    with pytest.raises(ValueError, match=r"^batch: expected graph numbers that do not decrease"):
        layer(batch.x, batch.edge_index, batch=batch.batch.flip(0))
    with pytest.raises(ValueError, match="self loop"):
        layer(batch.x, torch.tensor([[1], [1]]))


@pytest.mark.parametrize(
    "edges",
    [
        None,
        [[0], [1]],
        np.array([[0], [1]]),
        torch.zeros(2, 1, dtype=torch.int64, device="meta"),
        torch.eye(2).to_sparse(),
    ],
    ids=["none", "list", "numpy", "meta", "sparse"],
)
def test_edges_that_are_no_tensor_of_numbers_are_named(edges):
    x = torch.randn(3, 8)
    with pytest.raises(TypeError, match=r"^edge_index: expected a dense tensor with values(, \[2,E\])?, got "):
        pLSTMConv(8, 8)(x, edges)
    if isinstance(edges, torch.Tensor):
        with pytest.raises(TypeError, match=r"^graph: expected a dense tensor with values, got "):
            build(pLSTMGraphLayerConfig(input_dim=8, num_heads=2, max_edges=4))(x, edges)


@pytest.mark.parametrize("batch", [[0, 0, 0], torch.zeros(3), torch.zeros(3, dtype=torch.bool)])
def test_numbers_of_graphs_are_integers(batch):
    with pytest.raises(TypeError, match=r"^batch: expected a tensor of integers, got "):
        pLSTMConv(8, 8)(torch.randn(3, 8), torch.tensor([[0], [1]]), batch=batch)


def test_the_layer_can_be_drawn_anew():
    layer = pLSTMConv(3, 8, heads=2)
    before = [parameter.clone() for parameter in layer.parameters()]
    torch.manual_seed(1)
    layer.reset_parameters()
    assert any(not torch.equal(one, other) for one, other in zip(before, layer.parameters(), strict=True))
    topology = DagTopology.from_edges(2, [(0, 1)])
    assert layer(torch.randn(2, 3), topology).shape == (2, 8)
