"""The graph model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from plstm_config import pLSTMGraphModelConfig
from plstm_config.topology import DagTopology
from plstm_testing.tolerances import assert_close
from plstm_torch import build, from_pretrained, save_pretrained
from plstm_torch.models.graph import pool_graphs

DTYPES = {"dtype": "float64", "param_dtype": "float64"}
GRAPHS = [(5, [(0, 1), (0, 2), (2, 3), (1, 3), (3, 4), (0, 3)]), (1, []), (0, []), (3, [(2, 0), (0, 1), (2, 1)])]
Model = Callable[..., nn.Module]


@pytest.fixture
def model(randomize: Callable[[nn.Module], nn.Module]) -> Model:
    def make(**options: Any) -> nn.Module:
        options = {"input_dim": 4, "dim": 16, "output_dim": 3, "num_heads": 2, "max_edges": 3, **DTYPES, **options}
        return randomize(build(pLSTMGraphModelConfig(**options)))

    return make


def draw(edge_input_dim: int = 0) -> tuple[DagTopology, list[tuple[Tensor, DagTopology, Tensor | None]]]:
    """A batch, and the inputs of its graphs."""
    parts = []
    for size, edges in GRAPHS:
        x = torch.randn(size, 4, dtype=torch.float64)
        edge_attr = torch.randn(len(edges), edge_input_dim, dtype=torch.float64) if edge_input_dim else None
        parts.append((x, DagTopology.from_edges(size, edges), edge_attr))
    return DagTopology.batch([graph for _, graph, _ in parts]), parts


def joined(parts: list[tuple[Tensor, DagTopology, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    x = torch.cat([x for x, _, _ in parts])
    edge_attr = [attr for _, _, attr in parts if attr is not None]
    return x, torch.cat(edge_attr) if edge_attr else None


@pytest.mark.parametrize("pooling", ["mean", "sum", "max", "none"])
@pytest.mark.parametrize("edge_input_dim", [0, 2])
def test_a_batch_is_its_graphs(model: Model, edge_input_dim: int, pooling: str) -> None:
    network = model(edge_input_dim=edge_input_dim, pooling=pooling)
    batch, parts = draw(edge_input_dim)
    x, edge_attr = joined(parts)
    output = network(x, batch, edge_attr)
    assert output.shape == ((9 if pooling == "none" else 4), 3)
    separate = torch.cat([network(*part) for part in parts])
    assert_close(output.detach(), separate.detach())


@pytest.mark.parametrize("edge_input_dim", [0, 2])
def test_the_formula(model: Model, edge_input_dim: int) -> None:
    network = model(edge_input_dim=edge_input_dim, num_blocks=3, max_degree=2)
    x, graph, edge_attr = draw(edge_input_dim)[1][0]
    table = network.degree_encoding
    hidden = network.encoder(x) + table.in_degree[[0, 1, 1, 2, 1]] + table.out_degree[[2, 1, 1, 1, 0]]
    blocks = network.block_stack.blocks
    hidden = blocks[0](hidden, graph, edge_attr)
    hidden = blocks[1](hidden, graph.reverse(), edge_attr)
    hidden = blocks[2](hidden, graph, edge_attr)
    expected = network.head(network.norm(hidden).mean(0, keepdim=True))
    assert_close(network(x, graph, edge_attr).detach(), expected.detach())


def test_without_degrees(model: Model) -> None:
    network = model(degree_encoding=False)
    assert network.degree_encoding is None
    assert network(*draw()[1][0]).shape == (1, 3)


@pytest.mark.parametrize(("pooling", "reduce"), [("mean", "mean"), ("sum", "sum"), ("max", "amax")])
def test_pooling(pooling: str, reduce: str) -> None:
    batch, _ = draw()
    features = torch.randn(9, 5, dtype=torch.float64) - 3.0
    pooled = pool_graphs(features, batch, pooling)
    for graph, size in enumerate(batch.graph_sizes):
        rows = features[batch.node_graph == graph]
        expected = getattr(rows, reduce)(0) if size else torch.zeros(5, dtype=torch.float64)
        assert_close(pooled[graph], expected)
    with pytest.raises(ValueError, match=r"^pooling: expected one of 'mean', 'sum', 'max', got 'median'"):
        pool_graphs(features, batch, "median")


def test_narrow_sums_are_wide() -> None:
    """A sum of many narrow numbers would stop growing."""
    features = torch.ones(1000, 1, dtype=torch.bfloat16)
    pooled = pool_graphs(features, DagTopology.from_edges(1000, []), "sum")
    assert pooled.dtype == torch.bfloat16
    assert pooled.item() == 1000


@pytest.mark.parametrize("edge_input_dim", [0, 2])
def test_every_parameter_gets_a_gradient(model: Model, edge_input_dim: int) -> None:
    network = model(edge_input_dim=edge_input_dim)
    batch, parts = draw(edge_input_dim)
    x, edge_attr = joined(parts)
    network(x, batch, edge_attr).square().sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_information_flows_both_ways(model: Model) -> None:
    """The second block runs against the edges: the first node of a chain hears of the last."""
    chain = DagTopology.from_edges(4, [(0, 1), (1, 2), (2, 3)])
    for num_blocks, hears in ((1, False), (2, True)):
        network = model(num_blocks=num_blocks, pooling="none")
        x = torch.randn(4, 4, dtype=torch.float64)
        moved = x.clone()
        moved[3] += 1.0
        assert bool((network(moved, chain)[0] != network(x, chain)[0]).any()) is hears


def test_no_graphs(model: Model) -> None:
    assert model()(torch.zeros(0, 4, dtype=torch.float64), DagTopology.batch([])).shape == (0, 3)


@pytest.mark.parametrize("edge_input_dim", [0, 2])
def test_checkpointing_changes_no_number(model: Model, edge_input_dim: int) -> None:
    network = model(edge_input_dim=edge_input_dim)
    part = draw(edge_input_dim)[1][0]
    results = []
    for enabled in (False, True):
        network.set_gradient_checkpointing(enabled)
        network.zero_grad()
        network(*part).square().sum().backward()
        results.append([parameter.grad.clone() for parameter in network.parameters()])
    for kept, recomputed in zip(*results, strict=True):
        assert_close(recomputed, kept, kind="gradient")


@pytest.mark.parametrize("edge_input_dim", [0, 2])
def test_saved_and_loaded(model: Model, edge_input_dim: int, tmp_path: Path) -> None:
    network = model(edge_input_dim=edge_input_dim)
    save_pretrained(network, tmp_path)
    loaded = from_pretrained(tmp_path)
    part = draw(edge_input_dim)[1][0]
    assert torch.equal(loaded(*part), network.eval()(*part))


def test_wrong_input(model: Model) -> None:
    network = model()
    x, graph, _ = draw()[1][0]
    with pytest.raises(ValueError, match=r"^graph: expected a graph of N=4 nodes, as many as x has, got 5"):
        network(x[:4], graph)
    with pytest.raises(ValueError, match=r"^x: expected \[\.\.\., D\] with D=4, got \[5, 3\]"):
        network(x[:, :3], graph)
    with pytest.raises(ValueError, match=r"^edge_attr: expected None, since gates are made from nodes, got \[6, 2\]"):
        network(x, graph, torch.zeros(6, 2))
    with pytest.raises(TypeError, match=r"^graph: expected a DagTopology or an edge_index \[2,E\], got NoneType"):
        network(x, None)
