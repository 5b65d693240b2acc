"""Subgraphs that loaders of PyTorch Geometric sample, and what renumbering the nodes of a graph changes."""

from __future__ import annotations

import pytest
import torch

from plstm_testing.tolerances import assert_close

pytest.importorskip("torch_geometric")

from torch_geometric.data import Batch, Data
from torch_geometric.loader import NeighborLoader, RandomNodeLoader
from torch_geometric.sampler import BaseSampler, SamplerOutput
from torch_geometric.transforms import ToUndirected

from plstm_config.topology import DagTopology
from plstm_torch.pyg import AddTopology, FromBatch, batch_topology, pLSTMConv

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch_geometric")

TREE = [(0, 2), (2, 3), (3, 5), (1, 4), (4, 5), (5, 6), (2, 6)]
DIAMOND = [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (4, 5)]  # two ways from the first edge to the last
NODES = 8  # the last has no edges


class WholeNeighborhoods(BaseSampler):
    """Samples as the loader's own samplers do, which are compiled and need pyg-lib: seeds first, then hop by hop.

    Edges lead from a neighbour that was found to the node that it was found from.
    """

    def __init__(self, edge_index, hops):
        self.edges, self.hops = edge_index.T.tolist(), hops

    def sample_from_nodes(self, inputs, **_):
        nodes, rows, cols, taken = inputs.node.tolist(), [], [], []
        front = list(nodes)
        for _ in range(self.hops):
            found = [(number, edge) for number, edge in enumerate(self.edges) if edge[1] in front]
            front = []
            for number, (tail, head) in found:
                if number in taken:
                    continue
                if tail not in nodes:
                    nodes.append(tail)
                    front.append(tail)
                rows.append(nodes.index(tail))
                cols.append(nodes.index(head))
                taken.append(number)
        indices = (torch.tensor(values, dtype=torch.int64) for values in (nodes, rows, cols, taken))
        return SamplerOutput(*indices, metadata=(inputs.input_id, None))

    def sample_from_edges(self, *_, **__):
        pytest.fail("a loader of neighbours samples from nodes")


def graph(undirected=False):
    torch.manual_seed(0)
    data = Data(x=torch.randn(NODES, 3), edge_index=torch.tensor(TREE).T, y=torch.arange(NODES))
    return ToUndirected()(data) if undirected else data


def sampled(data, seeds, hops, transform=None):
    sampler = WholeNeighborhoods(data.edge_index, hops)
    loader = NeighborLoader(
        data, [-1] * hops, torch.tensor(seeds), transform=transform, neighbor_sampler=sampler, batch_size=len(seeds)
    )
    (batch,) = loader
    return batch


def layer(**options):
    torch.manual_seed(1)
    conv = pLSTMConv(3, 8, heads=2, **options)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.normal_(std=0.4)
    return conv


def close(actual, expected):
    assert_close(actual.detach(), expected.detach(), "float32", "output", "result")


@pytest.mark.parametrize("seeds", [[6], [3, 1], [5, 2, 7], [7]])
def test_seeds_hear_all_that_was_sampled_as_in_the_whole_graph(seeds):
    data, conv = graph(), layer(edge_dim=0, mode="D")
    batch = sampled(data, seeds, hops=4)  # as far as any path leads
    assert batch.n_id[: len(seeds)].tolist() == seeds
    close(conv(batch.x, batch.edge_index)[: len(seeds)], conv(data.x, data.edge_index)[seeds])


def test_in_p_mode_nodes_divide_what_arrives_among_the_edges_that_were_sampled():
    data, conv = graph(), layer(edge_dim=0)
    whole = conv(data.x, data.edge_index)
    batch = sampled(data, [6], hops=4)  # every edge
    close(conv(batch.x, batch.edge_index)[:1], whole[[6]])
    batch = sampled(data, [3], hops=4)  # not the other edge of node 2
    assert (conv(batch.x, batch.edge_index)[0] - whole[3]).abs().max() > 1e-4


def test_seeds_hear_as_far_as_was_sampled():
    batch, conv = sampled(graph(), [6], hops=1), layer(edge_dim=0)
    assert sorted(batch.n_id.tolist()) == [2, 5, 6]
    x = batch.x.requires_grad_()
    (reached,) = torch.autograd.grad(conv(x, batch.edge_index)[0].sum(), x)
    assert (reached.abs().amax(1) > 0).all()


@pytest.mark.parametrize("mode", ["P", "D"])
def test_an_order_gives_sampled_parts_of_an_undirected_graph_the_directions_of_the_whole(mode):
    data = graph(undirected=True)
    model = FromBatch(layer(edge_dim=0, undirected=True))
    batch = sampled(data, [6], hops=6, transform=AddTopology(mode, undirected=True, order="n_id"))
    topology = batch_topology(batch)
    expected = AddTopology(mode, undirected=True)(data)
    pairs = {tuple(pair) for pair in batch.n_id[torch.from_numpy(topology.edges.copy())].tolist()}
    assert pairs == set(TREE)
    if mode == "P":
        close(model(batch)[0], model(expected)[6])
    # the numbers of the sample itself begin with the seeds, so that everything leads away from them
    away = sampled(data, [6], hops=6, transform=AddTopology(mode, undirected=True))
    assert batch_topology(away).in_degree[0] == 0


def test_edges_by_order_keep_the_features_of_their_place_in_the_list():
    data = Data(x=torch.rand(3, 3), edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), rank=torch.tensor([7, 2, 4]))
    transform = AddTopology(undirected=True, order="rank")
    assert repr(transform) == "AddTopology(mode='P', undirected=True, order='rank')"
    topology = batch_topology(transform(data))
    assert topology.edges.tolist() == [[1, 2], [1, 0]]
    assert topology.edge_order.tolist() == [2, 0]
    assert topology.num_input_edges == 4


@pytest.mark.parametrize(
    ("numbers", "error", "message"),
    [
        (None, TypeError, r"^rank: expected a tensor of integers in the data, since order='rank', got NoneType"),
        (torch.ones(3), TypeError, r"^rank: expected a tensor of integers .* got torch.float32"),
        (torch.tensor([1, 2]), ValueError, r"^rank: expected N=3 different numbers, got shape \(2,\)"),
        (torch.tensor([1, 2, 1]), ValueError, r"^rank: expected N=3 different numbers, got 1 twice"),
    ],
)
def test_an_order_that_is_none_is_named(numbers, error, message):
    data = Data(x=torch.rand(3, 3), edge_index=torch.tensor([[0], [1]]), rank=numbers)
    with pytest.raises(error, match=message):
        AddTopology(order="rank")(data)


@pytest.mark.parametrize(
    "edges",
    [
        torch.tensor([[0, -1], [1, 2]]),
        torch.tensor([[0, 7], [1, 2]]),
        torch.tensor([[0, 0], [0, 2]]),
        torch.tensor([[0, 1, 2], [1, 2, 0]]),
        torch.tensor([[2, 2], [1, 1]]),
        torch.tensor([[0.0, 1.0], [1.0, 2.0]]),
        torch.tensor([[False, True], [True, False]]),
        torch.tensor([0, 1]),
    ],
)
def test_an_order_says_what_is_wrong_with_a_graph_by_the_numbers_in_the_data(edges):
    messages = []
    for order in (None, "rank"):
        data = Data(x=torch.rand(3, 3), edge_index=edges, rank=torch.tensor([5, 1, 2]))
        with pytest.raises((TypeError, ValueError)) as caught:
            AddTopology(order=order)(data)
        messages.append((caught.type, str(caught.value)))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_an_order_takes_edges_of_any_integers(dtype):
    def topology(edges):
        data = Data(x=torch.rand(3, 3), edge_index=edges, rank=torch.tensor([5, 1, 2]))
        return batch_topology(AddTopology(undirected=True, order="rank")(data))

    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    assert topology(edges.to(dtype)).edges.tolist() == topology(edges).edges.tolist() == [[1, 2], [1, 0]]


def test_a_batch_that_gets_its_topology_late_stays_one_of_many_graphs():
    path, none = torch.tensor([[0, 1], [1, 2]]), torch.zeros(2, 0, dtype=torch.int64)
    graphs = [Data(x=torch.rand(n, 3), edge_index=edges) for n, edges in ((3, path), (2, none), (4, path))]
    late = batch_topology(AddTopology()(Batch.from_data_list(graphs)))
    early = batch_topology(Batch.from_data_list([AddTopology()(graph) for graph in graphs]))
    assert late.node_ptr.tolist() == early.node_ptr.tolist() == [0, 3, 5, 9]
    assert late.edges.tolist() == early.edges.tolist()
    assert late.line_edges.tolist() == early.line_edges.tolist()


def test_a_loader_of_random_parts_takes_the_transform_too():
    loader = RandomNodeLoader(graph(), num_parts=3)
    model, transform = FromBatch(layer()), AddTopology()
    assert sum(len(model(transform(batch))) for batch in loader) == NODES


def test_a_topology_from_before_the_nodes_were_numbered_anew_is_refused():
    data = AddTopology()(Data(x=torch.rand(4, 3), edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]])))
    same = data.subgraph(torch.arange(4))
    assert batch_topology(same).edges.tolist() == [[0, 1], [1, 2], [2, 3]]
    turned = data.subgraph(torch.tensor([3, 1, 0, 2]))  # as many nodes and edges as before
    for changed in (turned, Batch.from_data_list([data, turned])):
        with pytest.raises(ValueError, match=r"^data: expected edges as AddTopology saw them, one of \(\d, \d\), got "):
            batch_topology(changed)


def test_a_topology_from_before_the_sampling_is_refused():
    data = AddTopology()(graph())
    message = r"^data: expected nodes and edges as AddTopology saw them \(N=8, 7 edges\), got N=.*transform of a loader"
    for changed in (sampled(data, [5], hops=1), data.subgraph(torch.arange(NODES) < 4)):
        with pytest.raises(ValueError, match=message):
            batch_topology(changed)
    assert batch_topology(data).num_nodes == NODES
    del data.edge_index  # the topology is all that a model needs
    assert batch_topology(data).num_nodes == NODES


# two arms behind one edge, each of which waits for a source of its own: the order of the sources decides what is pruned
ARMS = [(0, 2), (2, 3), (2, 4), (1, 7), (7, 3), (6, 8), (8, 4), (3, 5), (4, 5), (5, 9)]


@pytest.mark.parametrize(
    ("options", "edges", "kept"),
    [
        ({"edge_dim": 0}, TREE, True),
        ({"edge_dim": 2}, TREE, True),
        ({}, TREE, False),  # slots of edges follow the numbers of the nodes
        ({}, [(0, 1), (1, 2), (2, 3)], True),  # one slot on either side
        ({"edge_dim": 0, "mode": "D"}, [(0, 2), (1, 2), (2, 3), (2, 4), (4, 5)], True),  # nothing to prune
        ({"edge_dim": 0, "mode": "D"}, DIAMOND, True),  # pruned, but one source only
        ({"edge_dim": 0, "mode": "D"}, ARMS, False),
        ({"edge_dim": 0, "undirected": True}, TREE, False),  # directions follow the numbers
    ],
)
def test_what_renumbering_the_nodes_changes(options, edges, kept):
    torch.manual_seed(0)
    x, edge_attr = torch.randn(10, 3), torch.randn(len(edges), 2) if options.get("edge_dim") else None
    conv = layer(**options)
    plain = conv(x, torch.tensor(edges).T, edge_attr)
    numbers = torch.arange(10).flip(0) if edges is not ARMS else torch.tensor([0, 6, 2, 3, 4, 5, 1, 7, 8, 9])
    moved = conv(x[numbers.argsort()], numbers[torch.tensor(edges).T], edge_attr)[numbers]
    if kept:
        close(moved, plain)
    else:
        assert (moved - plain).abs().max() > 1e-3


def test_the_order_of_the_list_of_edges_changes_nothing_but_what_is_pruned():
    torch.manual_seed(0)
    x, order = torch.randn(NODES, 3), torch.randperm(len(TREE))
    edges, edge_attr = torch.tensor(TREE).T, torch.randn(len(TREE), 2)
    for conv, given in ((layer(), None), (layer(edge_dim=2), edge_attr)):
        close(conv(x, edges[:, order], None if given is None else given[order]), conv(x, edges, given))
    pruned = [DagTopology.from_edges(NODES, each, "D") for each in (DIAMOND, DIAMOND[::-1])]
    assert pruned[0].edges.tolist() == pruned[1].edges.tolist()
    assert pruned[0].line_edges.tolist() != pruned[1].line_edges.tolist()
