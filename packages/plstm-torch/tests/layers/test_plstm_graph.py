"""The graph layers against the reference, and what must hold for every graph."""

import json

import numpy as np
import pytest
import torch

from plstm_config import NormalInitConfig, pLSTMGraphEdgeLayerConfig, pLSTMGraphLayerConfig
from plstm_config.original import migrate
from plstm_config.topology import DagTopology
from plstm_testing import golden
from plstm_testing.tolerances import assert_within
from plstm_torch.build import build
from plstm_torch.layers import plstm_graph as layer_module
from plstm_torch.layers.graph_indices import graph_indices
from plstm_torch.ops import plstm_graph
from plstm_torch.original import load_original

DTYPES = {"dtype": "float64", "param_dtype": "float64"}
# two sources, a diamond, a lone node (7), edges in no order
EDGES = [(3, 5), (0, 1), (0, 2), (6, 3), (2, 3), (1, 3), (3, 4), (4, 5), (0, 3)]
NUM_NODES = 8
NODE_OPTIONS = [
    {"mode": "P"},
    {"mode": "D"},
    {"mode": "P", "pmode_normalization": "incoming"},
    {"mode": "D", "edge_slots": "swapped"},
    {"mode": "P", "edge_slots": "swapped", "max_edges": 7},
]
EDGE_OPTIONS = [
    {"mode": "P"},
    {"mode": "D"},
    {"mode": "P", "pmode_normalization": "incoming", "transition_node": "tail"},
    {"mode": "D", "transition_node": "tail"},
    {"mode": "P", "edge_input_dim": 0},
]


def node_layer(randomize, **options):
    options = {"input_dim": 6, "num_heads": 2, "max_edges": 4, **DTYPES, **options}
    return randomize(build(pLSTMGraphLayerConfig(**options)), 0.8)


def edge_layer(randomize, **options):
    options = {"input_dim": 6, "num_heads": 2, "edge_input_dim": 3, **DTYPES, **options}
    return randomize(build(pLSTMGraphEdgeLayerConfig(**options)), 0.8)


def make(kind, randomize, **options):
    return (node_layer if kind == "node" else edge_layer)(randomize, **options)


def features(module, num_edges=9, num_nodes=NUM_NODES):
    """Node features, and edge features if the layer reads them."""
    x = torch.randn(num_nodes, 6, dtype=torch.float64)
    width = getattr(module.config, "edge_input_dim", 0)
    return x, torch.randn(num_edges, width, dtype=torch.float64) if width else None


def edge_index(edges=EDGES):
    return torch.tensor(edges).T


@pytest.mark.parametrize(
    ("kind", "options"), [*(("node", o) for o in NODE_OPTIONS), *(("edge", o) for o in EDGE_OPTIONS)], ids=str
)
def test_agrees_with_the_reference(kind, options, randomize, by_reference, assert_close):
    module = make(kind, randomize, **options)
    x, edge_attr = features(module)
    topology = DagTopology.from_edges(NUM_NODES, EDGES)
    assert_close(module(x, topology, edge_attr), by_reference(module, x, topology, edge_attr))


@pytest.mark.parametrize("implementation", ["recurrent", "parallel"])
@pytest.mark.parametrize("options", [{"bias": True}, {"out": False}, {"qk_head_dim": 5, "hv_head_dim": 2}], ids=str)
@pytest.mark.parametrize("kind", ["node", "edge"])
def test_parts_switch_on_and_off(kind, options, implementation, randomize, by_reference, assert_close):
    module = make(kind, randomize, implementation=implementation, **options)
    assert (module.query.bias is not None) == module.config.bias
    x, edge_attr = features(module)
    topology = DagTopology.from_edges(NUM_NODES, EDGES)
    assert_close(module(x, topology, edge_attr), by_reference(module, x, topology, edge_attr))


@pytest.mark.filterwarnings("ignore::plstm_config.original.MigrationWarning")
@pytest.mark.parametrize("name", golden.names("layer_graph_edge"))
def test_agrees_with_the_original(name):
    case = golden.load(name)
    module = load_original(case.config, case.parameters)
    x, edge_attr = (torch.from_numpy(case.inputs[f"{kind}_features"]).requires_grad_() for kind in ("node", "edge"))
    edges = json.loads(case.about["note"])["edges_in_feature_order"]
    output = module(x, edge_index(edges), edge_attr)
    assert output.dtype == torch.float64
    assert_within(output.detach().numpy(), case.outputs["output"], case.limit, "output")
    (output * torch.from_numpy(case.inputs["cotangent"])).sum().backward()
    found = {"node_features": x.grad, "edge_features": edge_attr.grad}
    found |= {f"param/{name}": parameter.grad for name, parameter in module.named_parameters()}
    assert found.keys() == case.gradients.keys()
    for key, gradient in case.gradients.items():
        assert_within(found[key].numpy(), gradient, case.limit, key)


@pytest.mark.filterwarnings("ignore::plstm_config.original.MigrationWarning")
def test_migrated_configs_select_the_departures_of_the_original():
    node = migrate({"config_class": "pLSTMGraphLayerConfig", "input_dim": 8, "num_heads": 2, "max_edges": 3})
    assert (node.edge_slots, node.pmode_normalization) == ("swapped", "incoming")
    edge = migrate({"config_class": "pLSTMGraphEdgeLayerConfig", "input_dim": 8, "num_heads": 2, "edge_input_dim": 3})
    assert (edge.transition_node, edge.pmode_normalization) == ("tail", "incoming")


@pytest.mark.parametrize("kind", ["node", "edge"])
def test_an_edge_index_is_a_topology(kind, randomize):
    for mode in ("P", "D"):
        module = make(kind, randomize, mode=mode)
        x, edge_attr = features(module)
        for given in ("P", "D"):
            topology = DagTopology.from_edges(NUM_NODES, EDGES, given)
            assert torch.equal(module(x, topology, edge_attr), module(x, edge_index(), edge_attr))


@pytest.mark.parametrize("kind", ["node", "edge"])
def test_p_mode_bounds_what_leaves_an_edge(kind, randomize, monkeypatch):
    """Equation 9, for transitions as large as they come."""
    module, seen = make(kind, randomize), {}

    def spy(query, key, value, source, transition, *rest, **options):
        seen["transition"] = transition
        return plstm_graph(query, key, value, source, transition, *rest, **options)

    monkeypatch.setattr(layer_module, "plstm_graph", spy)
    with torch.no_grad():
        module.transition.weight.mul_(100.0)
        x, edge_attr = features(module)
        topology = DagTopology.from_edges(NUM_NODES, EDGES)
        module(x, topology, edge_attr)
    sums = torch.zeros(2, len(EDGES), dtype=torch.float64)
    sums.index_add_(1, graph_indices(topology, x.device).incoming, seen["transition"].abs())
    assert 0.9 < sums.max() <= 1.0


@pytest.mark.parametrize("mode", ["P", "D"])
@pytest.mark.parametrize("kind", ["node", "edge"])
def test_a_batch_is_its_graphs(kind, mode, randomize, assert_close):
    module = make(kind, randomize, mode=mode)
    graphs = [(NUM_NODES, EDGES), (1, []), (0, []), (3, [(2, 0), (0, 1), (2, 1)])]
    parts = [DagTopology.from_edges(*graph) for graph in graphs]
    inputs = [features(module, len(edges), size) for size, edges in graphs]
    separate = torch.cat([module(x, part, attr) for part, (x, attr) in zip(parts, inputs, strict=True)])
    x = torch.cat([x for x, _ in inputs])
    edge_attr = torch.cat([attr for _, attr in inputs]) if kind == "edge" else None
    assert_close(module(x, DagTopology.batch(parts), edge_attr), separate)


@pytest.mark.parametrize("kind", ["node", "edge"])
def test_the_order_of_the_edges_does_not_matter(kind, randomize):
    module = make(kind, randomize)
    x, edge_attr = features(module)
    order = torch.randperm(len(EDGES))
    permuted_attr = None if edge_attr is None else edge_attr[order]
    assert torch.equal(module(x, edge_index()[:, order], permuted_attr), module(x, edge_index(), edge_attr))


@pytest.mark.parametrize("mode", ["P", "D"])
@pytest.mark.parametrize("kind", ["node", "edge"])
def test_relabelled_nodes_get_the_same_output(kind, mode, randomize, assert_close):
    """A relabelling that keeps the order; new nodes in between stand alone."""
    module = make(kind, randomize, mode=mode)
    x, edge_attr = features(module)
    labels = torch.tensor([1, 2, 4, 5, 6, 9, 11, 12])
    spread = torch.randn(14, 6, dtype=torch.float64)
    spread[labels] = x
    relabelled = module(spread, labels[edge_index()], edge_attr)
    assert_close(relabelled[labels], module(x, edge_index(), edge_attr))


@pytest.mark.parametrize("kind", ["node", "edge"])
def test_edge_layers_ignore_the_names_of_nodes(kind, randomize, assert_close):
    """Without slots no order of nodes enters in P-mode; with slots it does, unless every slot has the same gates."""
    module = make(kind, randomize)
    if kind == "node":
        with torch.no_grad():
            for name, slots in (("source", 4), ("mark", 4), ("transition", 16)):
                for parameter in getattr(module, name).parameters():
                    by_slot = parameter.unflatten(0, (2, slots))
                    parameter.copy_(by_slot[:, :1].expand_as(by_slot).flatten(0, 1))
    x, edge_attr = features(module)
    names = torch.randperm(NUM_NODES)
    renamed = torch.empty_like(x)
    renamed[names] = x
    assert_close(module(renamed, names[edge_index()], edge_attr)[names], module(x, edge_index(), edge_attr))


@pytest.mark.parametrize("num_nodes", [0, 1, 4])
@pytest.mark.parametrize("kind", ["node", "edge"])
def test_no_edges(kind, num_nodes, randomize, by_reference, assert_close):
    module = make(kind, randomize)
    x, edge_attr = features(module, 0, num_nodes)
    topology = DagTopology.from_edges(num_nodes, [])
    output = module(x, topology, edge_attr)
    assert output.shape == (num_nodes, 6)
    if num_nodes:
        assert_close(output, by_reference(module, x, topology, edge_attr))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("node", NODE_OPTIONS[0]), ("node", NODE_OPTIONS[1]), *(("edge", o) for o in EDGE_OPTIONS[:3])],
)
def test_gradients(kind, options, randomize):
    edges, size = [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)], 5
    module = make(kind, randomize, input_dim=2, num_heads=1, mhnorm=None, **options)
    x = torch.randn(size, 2, dtype=torch.float64, requires_grad=True)
    edge_attr = torch.randn(len(edges), 3, dtype=torch.float64, requires_grad=True) if kind == "edge" else None
    names, parameters = zip(*module.named_parameters(), strict=True)
    topology = DagTopology.from_edges(size, edges)

    def run(x, edge_attr, *values):
        changed = dict(zip(names, values, strict=True))
        return torch.func.functional_call(module, changed, (x, topology, edge_attr))

    assert torch.autograd.gradcheck(run, (x, edge_attr, *parameters))


@pytest.mark.parametrize("kind", ["node", "edge"])
def test_every_parameter_gets_a_gradient(kind, randomize):
    module = make(kind, randomize, bias=True)
    x, edge_attr = features(module)
    module(x, edge_index(), edge_attr).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("kind", ["node", "edge"])
def test_narrow_dtypes(kind, dtype, randomize, assert_close):
    module = make(kind, randomize, dtype=dtype, param_dtype="float32")
    x, edge_attr = features(module)
    output = module(x, edge_index(), edge_attr)
    assert (output.dtype, module.dtype) == (x.dtype, getattr(torch, dtype))
    exact = make(kind, randomize)
    exact.load_state_dict(module.state_dict())
    x, edge_attr = (None if t is None else t.to(module.dtype).double() for t in (x, edge_attr))
    # projections, op, norm and output round one after the other: the table's entry for gradients fits such chains
    assert_close(module(x, edge_index(), edge_attr), exact(x, edge_index(), edge_attr), dtype, kind="gradient")


@pytest.mark.parametrize("kind", ["node", "edge"])
def test_gates_stay_wide_under_autocast(kind, randomize, assert_close, monkeypatch):
    module = make(kind, randomize, dtype="float32", param_dtype="float32")
    x, edge_attr = (None if t is None else t.float() for t in features(module))
    exact = module(x, edge_index(), edge_attr)
    seen = []

    def spy(*args, **kwargs):
        seen.extend(args[3:7])
        return plstm_graph(*args, **kwargs)

    monkeypatch.setattr(layer_module, "plstm_graph", spy)
    with torch.autocast("cpu", torch.bfloat16):
        output = module(x, edge_index(), edge_attr)
    assert len(seen) == 4
    assert all(gate.dtype == torch.float32 for gate in seen)
    assert_close(output, exact, "bfloat16", kind="gradient")


@pytest.mark.parametrize("kind", ["node", "edge"])
def test_initial_gates(kind):
    """Source, mark and direct start almost closed; in the node layer every slot starts handing on to its own."""
    module = build(
        pLSTMGraphLayerConfig(input_dim=6, num_heads=2, max_edges=3, **DTYPES)
        if kind == "node"
        else pLSTMGraphEdgeLayerConfig(input_dim=6, num_heads=2, edge_input_dim=3, **DTYPES)
    )
    for name in ("source", "mark", "direct"):
        gate = getattr(module, name)
        assert (gate.bias == -5.0).all()
        assert (gate.weight == 0.0).all()
    if kind == "node":
        bias = module.transition.bias.view(2, 3, 3)
        assert torch.equal(bias, 10.0 * torch.eye(3, dtype=torch.float64).expand(2, 3, 3))
    else:
        assert module.transition.bias.std() > 1.0


@pytest.mark.parametrize("kind", ["node", "edge"])
def test_parameters_can_be_drawn_anew(kind):
    config = pLSTMGraphLayerConfig if kind == "node" else pLSTMGraphEdgeLayerConfig
    size = {"max_edges": 3} if kind == "node" else {"edge_input_dim": 3}
    options = {"transition_bias_init": NormalInitConfig(), "bias": True, "qkvo_bias_init": NormalInitConfig()}
    torch.manual_seed(3)
    module = build(config(input_dim=6, num_heads=2, **size, **options))
    drawn = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    torch.manual_seed(3)
    module.reset_parameters()
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, drawn[name]), name


def test_two_out_edges_share_a_gate_only_if_swapped(randomize):
    """Both out-edges of node 0 are the first edge of their heads."""
    edges, x = [(0, 1), (0, 2)], torch.randn(3, 6, dtype=torch.float64)
    own, swapped = (node_layer(randomize, edge_slots=option) for option in ("own", "swapped"))
    swapped.load_state_dict(own.state_dict())
    for module, distinct in ((own, True), (swapped, False)):
        before = module(x, edge_index(edges))
        with torch.no_grad():
            module.source.bias.view(2, 4)[:, 1] += 1.0  # the second slot
        changed = (module(x, edge_index(edges)) - before).abs().amax(1) > 0
        assert changed.tolist() == [False, False, distinct]


def test_edge_features_of_merged_edges_are_the_first_ones(randomize):
    module = edge_layer(randomize)
    x, edge_attr = features(module, 3, 3)
    both_ways = DagTopology.from_edges(3, [(1, 0), (0, 1), (1, 2)], undirected=True)
    assert torch.equal(module(x, both_ways, edge_attr), module(x, edge_index([(0, 1), (1, 2)]), edge_attr[[0, 2]]))


def test_index_tensors_are_made_once_and_die_with_their_topology():
    topology = DagTopology.from_edges(NUM_NODES, EDGES)
    device = torch.device("cpu")
    assert graph_indices(topology, device) is graph_indices(topology, device)
    assert np.array_equal(graph_indices(topology, device).tail.numpy(), topology.edges[:, 0])
