"""pLSTMConv beside the convolutions of PyTorch Geometric: open widths, hubs, types of nodes, drawing anew."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch

from plstm_testing.tolerances import assert_close

pytest.importorskip("torch_geometric")

from torch_geometric.data import Data, HeteroData, InMemoryDataset
from torch_geometric.nn import Sequential, to_hetero
from torch_geometric.transforms import ToSparseTensor, ToUndirected
from torch_geometric.utils import to_edge_index

from plstm_config import pLSTMGraphModelConfig
from plstm_torch import build, pyg
from plstm_torch.pyg import AddTopology, FromBatch, batch_topology, pLSTMConv

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch_geometric")

PATH = torch.tensor([[0, 1, 2], [1, 2, 3]])
FORMS = pytest.mark.parametrize("edge_dim", [None, 0, 2])


def features(edge_dim):
    return torch.rand(3, edge_dim) if edge_dim else None


def weights(module):
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def same_weights(one, other):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)


@FORMS
def test_an_open_width_is_that_of_the_first_input_and_draws_what_a_known_one_draws(edge_dim):
    torch.manual_seed(3)
    known = pLSTMConv(5, 8, heads=2, edge_dim=edge_dim)
    conv = pLSTMConv(-1, 8, heads=2, edge_dim=edge_dim)
    assert repr(conv) == "pLSTMConv(-1, 8, heads=2)"
    before = dict(conv.named_parameters())
    assert before.keys() == dict(known.named_parameters()).keys()
    conv.reset_parameters()  # nothing to draw yet
    x, edge_attr = torch.rand(4, 5), features(edge_dim)
    torch.manual_seed(3)
    output = conv(x, PATH, edge_attr)
    assert repr(conv) == repr(known) == "pLSTMConv(5, 8, heads=2)"
    same_weights(weights(conv), weights(known))
    assert_close(output.detach(), known(x, PATH, edge_attr).detach(), "float32", "output", "result")
    assert all(conv.get_parameter(name) is parameter for name, parameter in before.items())
    with pytest.raises(ValueError, match=r"^x: expected "):
        conv(torch.rand(4, 6), PATH, edge_attr)


def test_an_optimizer_may_be_made_before_the_first_input():
    conv = pLSTMConv(-1, 8, heads=2)
    optimizer = torch.optim.SGD(conv.parameters(), lr=0.5)
    conv(torch.rand(4, 5), PATH).square().sum().backward()
    before = weights(conv)
    optimizer.step()
    assert not torch.equal(before["layer.out.weight"], conv.layer.out.weight)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_what_is_said_before_the_first_input_holds_after_it(dtype):
    conv, known = pLSTMConv(-1, 8).to(dtype).eval(), pLSTMConv(5, 8).to(dtype).eval()
    conv.layer.get_parameter("query.weight").requires_grad = False
    for each in (conv, known):
        x = torch.rand(4, 5)
        assert each(x, PATH).dtype == x.dtype
        assert each.layer.dtype == dtype
        assert all(parameter.dtype == dtype for parameter in each.parameters())
        assert not any(module.training for module in each.modules())
    assert not conv.layer.query.weight.requires_grad


@FORMS
def test_weights_travel_whichever_side_waits_for_an_input(edge_dim, tmp_path):
    def open_one():
        return pLSTMConv(-1, 8, heads=2, edge_dim=edge_dim)

    known = pLSTMConv(5, 8, heads=2, edge_dim=edge_dim)
    torch.save(known.state_dict(), tmp_path / "known.pt")
    conv, before = open_one(), torch.get_rng_state()
    conv.load_state_dict(torch.load(tmp_path / "known.pt", weights_only=True))
    assert torch.equal(torch.get_rng_state(), before)
    assert conv.in_channels == 5
    same_weights(weights(conv), weights(known))
    waiting = torch.nn.ModuleDict({"conv": open_one()})
    waiting.load_state_dict({f"conv.{name}": value for name, value in known.state_dict().items()})
    same_weights(weights(waiting["conv"]), weights(known))
    assert list(open_one().state_dict()) == list(known.state_dict())
    copied = copy.deepcopy(open_one())
    assert copied(torch.rand(4, 5), PATH, features(edge_dim)).shape == (4, 8)


def test_what_is_missing_of_loaded_weights_is_drawn():
    known = pLSTMConv(5, 8, heads=2)
    some = {name: value for name, value in known.state_dict().items() if "out" not in name}
    conv, drawn = pLSTMConv(-1, 8, heads=2), pLSTMConv(5, 8, heads=2)
    torch.manual_seed(3)
    drawn.reset_parameters()
    torch.manual_seed(3)
    assert conv.load_state_dict(some, strict=False).missing_keys == ["layer.out.weight"]
    same_weights(weights(conv), weights(known) | {"layer.out.weight": drawn.layer.out.weight.detach()})
    misfit = pLSTMConv(-1, 8, heads=2)
    torch.manual_seed(3)
    with pytest.raises(RuntimeError, match="size mismatch"):
        misfit.load_state_dict(pLSTMConv(5, 8, heads=4).state_dict())
    fitting = [name for name, value in weights(misfit).items() if value.isfinite().all() and value.abs().max() < 100]
    assert fitting == list(known.state_dict())


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_first_call_without_gradients_leaves_weights_that_can_be_trained(mode):
    conv, x = pLSTMConv(-1, 8), torch.rand(4, 5)
    with mode():
        conv(x, PATH)
    conv(x, PATH).sum().backward()
    assert all(parameter.grad is not None for parameter in conv.parameters())


def test_weights_without_values_are_not_loaded_over_values():
    known = pLSTMConv(5, 8)
    with pytest.raises((RuntimeError, ValueError), match=r"[Uu]ninitialized"):
        known.load_state_dict(pLSTMConv(-1, 8).state_dict())


def test_a_failed_first_call_leaves_the_width_open():
    conv = pLSTMConv(-1, 8)
    with pytest.raises(ValueError, match="cycle"):
        conv(torch.rand(2, 3), torch.tensor([[0, 1], [1, 0]]))
    with pytest.raises(ValueError, match="input_dim: expected an integer >= 1, got 0"):
        conv(torch.rand(2, 0), torch.tensor([[0], [1]]))
    assert conv.in_channels == -1
    assert conv(torch.rand(2, 3), torch.tensor([[0], [1]])).shape == (2, 8)


@pytest.mark.parametrize(
    ("in_channels", "error", "message"),
    [
        (0, ValueError, r"^in_channels: expected an integer >= 1, or -1 .* got 0"),
        (-2, ValueError, r"^in_channels: .* got -2"),
        (2.0, TypeError, r"^in_channels: .* got 2\.0"),
        ((3, 4), TypeError, r"^in_channels: .* got \(3, 4\); source and target nodes are the same"),
    ],
)
def test_widths_that_make_no_sense_are_named(in_channels, error, message):
    with pytest.raises(error, match=message):
        pLSTMConv(in_channels, 8)


def test_the_layer_stands_in_a_sequential_of_pyg():
    model = Sequential("x, edge_index", [(pLSTMConv(-1, 8), "x, edge_index -> x"), torch.nn.ReLU()])
    assert model(torch.rand(4, 5), PATH).shape == (4, 8)


def test_drawing_anew_with_a_seed_gives_what_building_gives():
    torch.manual_seed(5)
    known = weights(conv := pLSTMConv(3, 8, heads=2, edge_dim=2))
    conv.reset_parameters()
    torch.manual_seed(5)
    conv.reset_parameters()
    same_weights(weights(conv), known)


def test_hubs_need_no_weights_of_their_own():
    spokes = 1000
    hub = torch.stack([torch.arange(1, spokes + 1), torch.zeros(spokes, dtype=torch.int64)])
    out = torch.stack([torch.zeros(5, dtype=torch.int64), torch.arange(spokes + 1, spokes + 6)])
    x, edges = torch.randn(spokes + 6, 16, requires_grad=True), torch.cat([hub, out], 1)
    with pytest.raises(ValueError, match=r"^graph: .* max_edges=16 .* got 1000 into node 0; .*edge_dim=0"):
        pLSTMConv(16, 16)(x, edges)
    for mode in ("P", "D"):
        conv = pLSTMConv(16, 16, edge_dim=0, mode=mode)
        assert sum(parameter.numel() for parameter in conv.parameters()) < 2000
        with torch.no_grad():
            for parameter in conv.parameters():
                parameter.normal_(std=0.4)
        (reached,) = torch.autograd.grad(conv(x, edges)[spokes + 1].sum(), x)
        assert (reached[1 : spokes + 1].abs().amax(1) > 0).all() if mode == "P" else reached[0].abs().max() > 0


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = pLSTMConv(-1, 8)

    def forward(self, x, edge_index):
        return self.conv(x, edge_index).relu()


def two_types():
    data = HeteroData()
    data["paper"].x, data["author"].x = torch.rand(3, 4), torch.rand(2, 4)
    data["author", "writes", "paper"].edge_index = torch.tensor([[0, 0, 1], [0, 1, 2]])
    data["author", "advises", "author"].edge_index = torch.tensor([[0], [1]])
    data["paper", "cites", "paper"].edge_index = torch.tensor([[0, 1], [1, 2]])
    return data


def test_types_of_nodes_are_refused_with_the_way_out_which_works():
    data = two_types()
    model = to_hetero(Net(), data.metadata())
    with pytest.raises(TypeError, match=r"^x: expected a tensor .* got tuple; .*HeteroData\.to_homogeneous\(\)"):
        model(data.x_dict, data.edge_index_dict)
    assert "to_hetero" in pLSTMConv.__doc__
    with pytest.raises(TypeError, match=r"^data: expected .* got HeteroData; .* see HeteroData.to_homogeneous"):
        AddTopology()(data)
    with pytest.raises(TypeError, match=r"^data: expected a graph with edge_index \[2,E\], got Data without$"):
        AddTopology()(Data(x=torch.rand(2, 3)))
    whole = data.to_homogeneous()
    types = torch.nn.functional.one_hot(whole.node_type, 2).float()
    relations = torch.nn.functional.one_hot(whole.edge_type, 3).float()
    conv = pLSTMConv(-1, 8, edge_dim=3)
    assert conv(torch.cat([whole.x, types], 1), whole.edge_index, relations).shape == (5, 8)


def test_isolated_nodes_and_graphs_without_edges_read_themselves():
    torch.manual_seed(0)
    conv, none = pLSTMConv(4, 8), torch.zeros(2, 0, dtype=torch.int64)
    x = torch.rand(6, 4, requires_grad=True)
    (reached,) = torch.autograd.grad(conv(x, PATH)[5].sum(), x)
    assert reached.abs().amax(1).nonzero().flatten().tolist() == [5]
    assert_close(conv(x, PATH)[4:].detach(), conv(x[4:], none).detach(), "float32", "output", "result")
    assert conv(torch.rand(0, 4), none).shape == (0, 8)
    assert conv(x, PATH, batch=torch.tensor([0, 0, 0, 0, 2, 2])).shape == (6, 8)  # the second graph is empty


def test_a_dataset_is_processed_and_read_again_without_a_warning(tmp_path):
    class Paths(InMemoryDataset):
        processed_file_names = ("data.pt",)

        def __init__(self, root, pre_transform):
            super().__init__(root, pre_transform=pre_transform)
            self.load(self.processed_paths[0])

        def process(self):
            data = [ToUndirected()(Data(x=torch.rand(4, 2), edge_index=PATH)) for _ in range(3)]
            self.save([self.pre_transform(each) for each in data], self.processed_paths[0])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):  # made, then read
            dataset = Paths(str(tmp_path), AddTopology(undirected=True))
            assert batch_topology(dataset[1]).edges.tolist() == [[0, 1], [1, 2], [2, 3]]


def test_the_first_line_of_the_module_says_what_becomes_of_a_list_of_both_directions():
    both = torch.cat([PATH, PATH.flip(0)], 1)
    assert "keep their direction" in pyg.__doc__.splitlines()[0]
    with pytest.raises(ValueError, match="undirected=True"):
        pLSTMConv(4, 8)(torch.rand(4, 4), both)
    x = torch.rand(4, 4, requires_grad=True)
    (reached,) = torch.autograd.grad(pLSTMConv(4, 8, undirected=True)(x, both)[1].sum(), x)
    assert reached.abs().amax(1).nonzero().flatten().tolist() == [0, 1]  # from lower numbers only


def test_graph_numbers_are_borders_whatever_their_size():
    conv, x, edges = pLSTMConv(5, 8), torch.rand(4, 5), torch.tensor([[0, 2], [1, 3]])
    for numbers in ([0, 0, 1, 1], [-3, -3, 10**10, 10**10]):
        assert_close(conv(x, edges, None, torch.tensor(numbers)).detach(), conv(x, edges).detach(), "float32")


@pytest.mark.parametrize(("edge_dim", "field"), [(None, "qk_head_dim"), (0, "hv_head_dim")])
@pytest.mark.parametrize("name", ["concat", "dropout", "input_dim", "class_name"])
def test_an_option_of_another_convolution_is_refused_with_those_that_are(edge_dim, field, name):
    with pytest.raises(TypeError, match=rf"^{name}: expected an argument of pLSTMConv or one of \[.*'{field}'"):
        pLSTMConv(4, 8, edge_dim=edge_dim, **{name: 3})


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_a_sparse_matrix_is_refused_with_the_way_back_to_a_list():
    path = Data(x=torch.rand(4, 3), edge_index=PATH)
    sparse, conv = ToSparseTensor(remove_edge_index=False)(path), pLSTMConv(3, 8)
    with pytest.raises(TypeError, match=r"^edge_index: .* layout torch.sparse_csr; .*to_edge_index\(adj_t.t\(\)\)"):
        conv(sparse.x, sparse.adj_t)
    edge_index, _ = to_edge_index(sparse.adj_t.t())
    torch.testing.assert_close(conv(path.x, edge_index), conv(path.x, PATH), rtol=0, atol=0)
    with pytest.raises(TypeError, match=r"^data: .* without; ToSparseTensor\(remove_edge_index=False\) keeps it"):
        AddTopology()(ToSparseTensor()(Data(x=torch.rand(4, 3), edge_index=PATH)))
    assert AddTopology()(sparse).topology_edges.shape == (3, 2)


def test_a_model_says_what_its_batch_lacks():
    model = FromBatch(build(pLSTMGraphModelConfig(input_dim=3, dim=8, num_heads=2, num_blocks=2, output_dim=2)))
    with pytest.raises(TypeError, match=r"^data: expected features of nodes, x \[N,D\], got Data without"):
        model(AddTopology()(Data(edge_index=PATH, num_nodes=4)))
    types = HeteroData()
    types["a"].x = torch.rand(2, 3)
    with pytest.raises(TypeError, match=r"^data: expected a graph of one type .* got HeteroData"):
        model(types)
