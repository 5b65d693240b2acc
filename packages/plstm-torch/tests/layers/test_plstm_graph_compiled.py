"""Layers, blocks and models on graphs under torch.compile: one program for all graphs."""

import pytest
import torch

from plstm_config import (
    PostUpProjectionBlockConfig,
    pLSTMGraphBlockConfig,
    pLSTMGraphEdgeLayerConfig,
    pLSTMGraphLayerConfig,
    pLSTMGraphModelConfig,
)
from plstm_config.topology import DagTopology
from plstm_testing.conformance.draws import random_dag
from plstm_testing.tolerances import assert_close
from plstm_torch.build import build

DTYPES = {"dtype": "float64", "param_dtype": "float64"}
FEATURES, EDGE_FEATURES = 8, 3
OF_NODES = {"input_dim": FEATURES, "num_heads": 2, "max_edges": 9}
OF_EDGES = {"input_dim": FEATURES, "num_heads": 2, "edge_input_dim": EDGE_FEATURES}
CASES = {
    "node gates, P": pLSTMGraphLayerConfig(**OF_NODES, mode="P", **DTYPES),
    "node gates, D": pLSTMGraphLayerConfig(**OF_NODES, mode="D", **DTYPES),
    "edge gates, P": pLSTMGraphEdgeLayerConfig(**OF_EDGES, mode="P", **DTYPES),
    "edge gates, D": pLSTMGraphEdgeLayerConfig(**OF_EDGES, mode="D", **DTYPES),
    "pair of blocks": pLSTMGraphBlockConfig(**OF_NODES, **DTYPES),
    "model": pLSTMGraphModelConfig(dim=8, output_dim=2, num_blocks=2, **OF_EDGES, **DTYPES),
}
pytestmark = [
    pytest.mark.usefixtures("fresh_compiler"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning"),  # of torch about itself
    pytest.mark.filterwarnings("ignore:.*torch._prims_common.check.*:FutureWarning"),
]


def inputs(module, graphs, seed, mode="P"):
    """Features, topology and features of edges of a batch; as the module takes them."""
    topology = DagTopology.batch([random_dag(5 + (seed + i) % 4, 10 * seed + i, mode) for i in range(graphs)])
    dtype = next(module.parameters()).dtype
    x = torch.randn(topology.num_nodes, FEATURES, dtype=dtype)
    with_edges = getattr(module.config, "edge_input_dim", 0) > 0
    return x, topology, torch.randn(topology.num_input_edges, EDGE_FEATURES, dtype=dtype) if with_edges else None


def gradients(function, module, x, *rest):
    module.zero_grad()
    x = x.clone().requires_grad_()
    output = function(x, *rest)
    output.square().sum().backward()
    return output.detach(), {"x": x.grad, **{name: parameter.grad for name, parameter in module.named_parameters()}}


def compare(compiled, module, *given, dtype="float64"):
    output, found = gradients(compiled, module, *given)
    expected_output, expected = gradients(module, module, *given)
    assert_close(output, expected_output, dtype)
    for name, gradient in expected.items():
        assert_close(found[name], gradient, dtype, kind="gradient", label=name)


@pytest.mark.parametrize("case", CASES)
def test_one_program_serves_all_batches(case, randomize):
    """Batches of other graphs, other sizes and the other mode of the topology."""
    module = randomize(build(CASES[case]), 0.4)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for seed, stance in enumerate(("default", "fail_on_recompile", "fail_on_recompile")):
        with torch.compiler.set_stance(stance):
            compare(compiled, module, *inputs(module, 4 + seed, seed))


@pytest.mark.parametrize("case", ["node gates, P", "edge gates, D"])
def test_topologies_of_the_other_mode_compile(case, randomize):
    module = randomize(build(CASES[case]), 0.4)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for mode in "PD":
        compare(compiled, module, *inputs(module, 4, 1, mode))


def test_an_edge_index_compiles(randomize):
    module = randomize(build(CASES["edge gates, D"]), 0.4)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for seed, stance in ((1, "default"), (2, "fail_on_recompile")):
        x, topology, edge_attr = inputs(module, 4, seed)
        edge_index = torch.from_numpy(topology.edges.T.copy())
        with torch.compiler.set_stance(stance):
            compare(compiled, module, x, edge_index, edge_attr)
    edge_index[:, :2] = torch.tensor([[0, 1], [1, 0]])
    with pytest.raises(ValueError, match=r"^edges: expected no cycle, got"):
        compiled(x, edge_index, edge_attr)


def test_a_training_step_compiles(randomize):
    """With a block compiled alone, as in regional compilation: gradients, an optimizer, and drop path over graphs."""
    config = pLSTMGraphLayerConfig(**OF_NODES, mode="D", **DTYPES)
    block = build(PostUpProjectionBlockConfig(input_dim=FEATURES, interaction_module=config, **DTYPES))
    modules = [randomize(block, 0.4), build(block.config)]
    modules[1].load_state_dict(block.state_dict())
    modules[0].compile(fullgraph=True, backend="aot_eager", dynamic=True)
    batches = [inputs(modules[1].interaction_module, 4 + seed, seed)[:2] for seed in range(3)]
    losses = []
    for module in modules:
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
        for x, topology in batches:
            optimizer.zero_grad()
            loss = module(x, topology).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    for one, other in zip(losses[:3], losses[3:], strict=True):
        assert_close(one, other, kind="gradient")


@pytest.mark.slow
def test_compiles_to_machine_code(randomize):
    dtype = "float32"
    module = randomize(build(pLSTMGraphEdgeLayerConfig(**OF_EDGES, mode="D", dtype=dtype, param_dtype=dtype)), 0.4)
    compiled = torch.compile(module, fullgraph=True, dynamic=True)
    for seed, stance in enumerate(("default", "fail_on_recompile")):
        with torch.compiler.set_stance(stance):
            compare(compiled, module, *inputs(module, 4 + seed, seed), dtype=dtype)


def test_wrong_graphs_are_named(randomize):
    module = build(pLSTMGraphLayerConfig(input_dim=FEATURES, num_heads=2, max_edges=1, **DTYPES))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x, topology, _ = inputs(module, 4, 1)
    for function in (compiled, module):
        with pytest.raises(ValueError, match=r"^graph: expected at most max_edges=1 edges into a node, got"):
            function(x, topology)
