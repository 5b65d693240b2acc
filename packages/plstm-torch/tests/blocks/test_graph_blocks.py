"""Blocks on graphs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from plstm_config import (
    BlockStackConfig,
    PostUpProjectionBlockConfig,
    PreUpProjectionBlockConfig,
    pLSTMGraphBlockConfig,
    pLSTMGraphEdgeBlockConfig,
    pLSTMGraphEdgeLayerConfig,
    pLSTMGraphLayerConfig,
)
from plstm_config.topology import DagTopology
from plstm_testing.tolerances import assert_close
from plstm_torch import build
from plstm_torch.context import Context, call

DTYPES = {"dtype": "float64", "param_dtype": "float64"}
EDGES = [(0, 1), (0, 2), (4, 3), (2, 3), (1, 3), (3, 5), (0, 3)]
NUM_NODES = 6
CONFIGS = {
    "post_up": PostUpProjectionBlockConfig(
        input_dim=8, interaction_module=pLSTMGraphLayerConfig(input_dim=8, num_heads=2, max_edges=4, **DTYPES), **DTYPES
    ),
    "pre_up": PreUpProjectionBlockConfig(
        input_dim=8,
        projection_round=8,
        interaction_module=pLSTMGraphEdgeLayerConfig(input_dim=16, num_heads=2, edge_input_dim=3, mode="D", **DTYPES),
        **DTYPES,
    ),
    "node": pLSTMGraphBlockConfig(input_dim=8, num_heads=2, max_edges=4, **DTYPES),
    "edge": pLSTMGraphEdgeBlockConfig(
        input_dim=8, num_heads=2, edge_input_dim=3, block_mode="DP", block_type="pre_up", **DTYPES
    ),
    "stack": BlockStackConfig(
        input_dim=8,
        num_blocks=3,
        block=pLSTMGraphEdgeBlockConfig(input_dim=8, num_heads=2, edge_input_dim=3, **DTYPES),
        **DTYPES,
    ),
}
WITHOUT_EDGE_FEATURES = ("post_up", "node")


def inputs(name: str) -> tuple[Tensor, Tensor | None]:
    x = torch.randn(NUM_NODES, 8, dtype=torch.float64)
    return x, None if name in WITHOUT_EDGE_FEATURES else torch.randn(len(EDGES), 3, dtype=torch.float64)


@pytest.fixture(params=CONFIGS)
def case(request: pytest.FixtureRequest, randomize: Callable[[nn.Module], nn.Module]) -> tuple[nn.Module, Any, Any]:
    return randomize(build(CONFIGS[request.param])), *inputs(request.param)


def test_shape_and_every_gradient(case: tuple[nn.Module, Any, Any]) -> None:
    block, x, edge_attr = case
    y = block(x, DagTopology.from_edges(NUM_NODES, EDGES), edge_attr)
    assert y.shape == x.shape
    y.square().sum().backward()
    assert [name for name, parameter in block.named_parameters() if parameter.grad is None] == []


def test_an_edge_index_is_a_topology_of_either_mode(case: tuple[nn.Module, Any, Any]) -> None:
    block, x, edge_attr = case
    expected = block(x, torch.tensor(EDGES).T, edge_attr)
    for mode in ("P", "D"):
        assert torch.equal(block(x, DagTopology.from_edges(NUM_NODES, EDGES, mode), edge_attr), expected)


@pytest.mark.parametrize("name", ["node", "edge"])
def test_a_pair_is_its_blocks(name: str, randomize: Callable[[nn.Module], nn.Module]) -> None:
    pair = randomize(build(CONFIGS[name]))
    x, edge_attr = inputs(name)
    topologies = {mode: DagTopology.from_edges(NUM_NODES, EDGES, mode) for mode in ("P", "D")}
    y = x
    for block in (pair.block0, pair.block1):
        y = block(y, topologies[block.config.interaction_module.mode], edge_attr)
    assert_close(pair(x, topologies["P"], edge_attr).detach(), y.detach())


def test_a_post_up_block_follows_its_formula(randomize: Callable[[nn.Module], nn.Module]) -> None:
    block = randomize(build(CONFIGS["post_up"]))
    x, _ = inputs("post_up")
    graph = DagTopology.from_edges(NUM_NODES, EDGES)
    x2 = x + block.interaction_module(block.norm(x), graph)
    y = x2 + block.downproj(nn.functional.gelu(block.upproj(block.norm2(x2))))
    assert_close(block(x, graph).detach(), y.detach())


def test_a_stack_is_its_blocks(randomize: Callable[[nn.Module], nn.Module]) -> None:
    stack = randomize(build(CONFIGS["stack"]))
    x, edge_attr = inputs("stack")
    graph = DagTopology.from_edges(NUM_NODES, EDGES)
    y = x
    for block in stack.blocks:
        y = block(y, graph, edge_attr)
    assert_close(stack(x, graph, edge_attr).detach(), y.detach())


def test_checkpointing_changes_no_number(randomize: Callable[[nn.Module], nn.Module]) -> None:
    stack = randomize(build(CONFIGS["stack"]))
    x, edge_attr = inputs("stack")
    graph = DagTopology.from_edges(NUM_NODES, EDGES)
    results = []
    for enabled in (False, True):
        stack.gradient_checkpointing = enabled  # type: ignore[assignment]
        stack.zero_grad()
        stack(x, graph, edge_attr).square().sum().backward()
        results.append([parameter.grad.clone() for parameter in stack.parameters()])
    for kept, recomputed in zip(*results, strict=True):
        assert_close(recomputed, kept, kind="gradient")


def test_drop_path_drops_whole_graphs(randomize: Callable[[nn.Module], nn.Module]) -> None:
    config = PostUpProjectionBlockConfig(
        input_dim=8,
        drop_path_rate=0.5,
        interaction_module=pLSTMGraphLayerConfig(input_dim=8, num_heads=2, max_edges=4, **DTYPES),
        **DTYPES,
    )
    block = randomize(build(config))
    parts = [DagTopology.from_edges(3, [(0, 1), (1, 2)]), DagTopology.from_edges(0, []), DagTopology.from_edges(1, [])]
    batch = DagTopology.batch(parts * 16)
    x = torch.randn(batch.num_nodes, 8, dtype=torch.float64)
    change = (block.train()(x, batch) - x).detach()
    dropped = (change == 0).all(1)
    first = torch.tensor([bool(dropped[start]) for start in batch.node_ptr[batch.node_graph]])
    assert torch.equal(dropped, first)
    assert 0 < int(dropped.sum()) < len(x)
    assert torch.equal(block.eval()(x, batch), block(x, batch))
    single = block.train()(x[:3], torch.tensor([[0, 1], [1, 2]])) - x[:3]
    assert (single == 0).all(1).sum() in (0, 3)


def test_graphs_go_where_they_belong() -> None:
    block = build(CONFIGS["post_up"])
    with pytest.raises(TypeError, match=r"^graph: expected a DagTopology or an edge_index \[2,E\], got NoneType"):
        block(torch.zeros(NUM_NODES, 8))
    with pytest.raises(ValueError, match=r"^return_cache: expected a module with one time axis"):
        block(torch.zeros(NUM_NODES, 8), torch.tensor(EDGES).T, return_cache=True)
    sequence = build(PostUpProjectionBlockConfig(input_dim=64))
    with pytest.raises(ValueError, match=r"^graph: expected None, since PostUpProjectionBlock is not on graphs"):
        sequence(torch.zeros(1, 3, 64), torch.tensor(EDGES).T)
    with pytest.raises(ValueError, match=r"^edge_attr: expected None, since Linear is not on graphs"):
        call(nn.Linear(8, 8), torch.zeros(1, 8), Context(edge_attr=torch.zeros(7, 3)))
