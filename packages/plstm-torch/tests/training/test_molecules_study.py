"""The study of molecules: every model on a fold, its files, its table, and its page."""

import importlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from plstm_torch.training.graph_task import GraphBatch

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def study():
    pytest.importorskip("torch_geometric")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "studies"))
        yield importlib.import_module("molecules")


@pytest.fixture
def root(tmp_path) -> Path:
    """Twelve paths of three or four nodes in the TU format; nodes and edges have labels, the class is the length."""
    raw = tmp_path / "MUTAG" / "raw"
    raw.mkdir(parents=True)
    bonds, nodes = [], []
    for graph in range(12):
        first = len(nodes) + 1
        nodes += [graph + 1] * (3 + graph % 2)
        bonds += [pair for tail in range(first, len(nodes)) for pair in ((tail, tail + 1), (tail + 1, tail))]
    files = {
        "A": [f"{tail}, {head}" for tail, head in bonds],
        "edge_labels": [tail % 2 for tail, head in bonds],
        "graph_indicator": nodes,
        "graph_labels": [graph % 2 for graph in range(12)],
        "node_labels": [node % 3 for node in range(len(nodes))],
    }
    for name, lines in files.items():
        (raw / f"MUTAG_{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    return tmp_path


def test_every_model_on_every_fold_its_file_and_its_table(study, root, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(study, "DATA", replace(study.DATA, num_folds=3, dim=16, num_blocks=1))
    monkeypatch.setattr(study, "GRAPHS_TRAINING", replace(study.GRAPHS_TRAINING, epochs=1))
    out = tmp_path / "results"
    wanted = study.wanted(list(study.TITLES), [0])
    study.run_missing(out, wanted, partial(study.run, root=str(root)), minutes=5, measure="test_accuracy")
    assert sorted(path.stem for path in out.iterdir()) == ["gatv2_0", "gcn_0", "gin_0", "plstm_0"]
    found = study.results(out)
    for (one,) in found.values():
        assert [fold["fold"] for fold in one["epochs"]] == [0, 1, 2]
        assert one["test_accuracy"] == pytest.approx(sum(fold["test_accuracy"] for fold in one["epochs"]) / 3)
    assert len(study.table(found).splitlines()) == 2 + len(study.TITLES)


@pytest.fixture
def data(study, root):
    return study.GraphsTask(replace(study.DATA, root=str(root), num_folds=3), 0).data


def test_bonds_go_both_ways_with_their_own_features(study, data) -> None:
    graph = GraphBatch.from_arrays(data.batch([0, 1])[0])
    bonds, features = study.both_ways(graph.topology, graph.edge_attr)
    seen = {tuple(pair): feature.tolist() for pair, feature in zip(bonds.T.tolist(), features, strict=True)}
    assert sorted(seen) == [(0, 1), (1, 0), (1, 2), (2, 1), (3, 4), (4, 3), (4, 5), (5, 4), (5, 6), (6, 5)]
    assert all(seen[tail, head] == feature for (head, tail), feature in seen.items())
    assert seen[0, 1] != seen[1, 2]
    assert seen[0, 1] == seen[4, 5]  # nodes are numbered from one in the files, and labels count them modulo two


@pytest.mark.parametrize("kind", ["gcn", "gin", "gatv2"])
def test_graphs_do_not_mix(study, data, kind) -> None:
    model = study.Convolutions(kind, data.node_dim, data.edge_dim, classes=2, width=8, layers=2).eval()
    alone, together = (GraphBatch.from_arrays(data.batch(some)[0]) for some in ([0], [0, 1]))
    logits = [model(graphs.x, graphs.topology, graphs.edge_attr)[0] for graphs in (alone, together)]
    torch.testing.assert_close(*logits)


def test_the_page_shows_the_table_of_the_files(study) -> None:
    assert study.table(study.results(study.RESULTS)) in study.PAGE.read_text(encoding="utf-8")
