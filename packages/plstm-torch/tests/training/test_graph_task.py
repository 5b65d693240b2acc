"""Graph classification: data, folds, the cross-validation and its command."""

import json
import math

import numpy as np
import pytest

from plstm_config import count_parameters, pLSTMGraphModelConfig
from plstm_testing.datasets import DatasetError, load_tu_dataset, split_folds
from plstm_torch.cli import app
from plstm_torch.optional import UserError
from plstm_torch.training import RunFolder, cross_validation
from plstm_torch.training.graph_task import edge_gates


@pytest.fixture
def root(tmp_path):
    """Twelve rings and twelve paths in the files of the collection, with two labels of nodes and of edges."""
    folder = tmp_path / "datasets" / "SHAPES" / "raw"
    folder.mkdir(parents=True)
    pairs, owners, node_labels, edge_labels, labels = [], [], [], [], []
    for graph in range(24):
        size, first, ring = 3 + graph % 4, len(owners) + 1, graph % 2
        edges = [(first + i, first + i + 1) for i in range(size - 1)] + [(first + size - 1, first)] * ring
        for number, (a, b) in enumerate(edges):
            pairs += [f"{a}, {b}", f"{b}, {a}"]
            edge_labels += [str(number % 2)] * 2
        owners += [str(graph + 1)] * size
        node_labels += [str(i % 2) for i in range(size)]
        labels.append(str(2 * ring - 1))
    files = {"A": pairs, "graph_indicator": owners, "graph_labels": labels}
    files |= {"node_labels": node_labels, "edge_labels": edge_labels}
    for name, lines in files.items():
        (folder / f"SHAPES_{name}.txt").write_text("\n".join(lines) + "\n")
    return folder.parent.parent


def run(*words):
    with pytest.raises(SystemExit) as stopped:
        app([str(word) for word in words])
    return stopped.value.code


def train(root, out, *words):
    common = ("--dataset", "SHAPES", "--root", root, "--out", out, "--dim", 16, "--heads", 2, "--num-folds", 4)
    return run("train", "graphs", *common, "--epochs", 2, "--threads", 1, "--device", "cpu", *words)


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_data_become_graphs_with_one_edge_for_two_directions(root):
    data = load_tu_dataset("SHAPES", root)
    assert (len(data.graphs), data.node_dim, data.edge_dim, data.num_classes) == (24, 2, 2, 2)
    path, ring = data.graphs[0], data.graphs[1]
    assert path.topology.edges.tolist() == [[0, 1], [1, 2]]
    assert sorted(ring.topology.edges.tolist()) == [[0, 1], [0, 3], [1, 2], [2, 3]]
    batch, labels = data.batch([1, 0, 2])
    assert labels.tolist() == [1, 0, 0]
    assert batch.topology.num_graphs == 3
    # the features of an edge are found by its place in the input
    first = batch.edge_attr[batch.topology.edge_order]
    np.testing.assert_array_equal(first[: len(ring.topology.edges)], ring.edge_attr[ring.topology.edge_order])


@pytest.mark.parametrize("place", ["SHAPES", "."])
def test_the_files_are_found_wherever_they_were_unpacked(root, place):
    before = load_tu_dataset("SHAPES", root)
    for path in (root / "SHAPES" / "raw").iterdir():
        path.rename(root / place / path.name)
    after = load_tu_dataset("SHAPES", root)
    assert (after.digest, len(after.graphs)) == (before.digest, 24)


def test_folds_share_nothing_and_keep_the_classes(root):
    labels = load_tu_dataset("SHAPES", root).labels
    folds = split_folds(labels, 4, seed=1)
    assert sorted(index for fold in folds for index in fold.test) == list(range(24))
    for number, fold in enumerate(folds):
        assert sorted(fold.train + fold.validation + fold.test) == list(range(24))
        assert fold.validation == folds[(number + 1) % 4].test
        assert labels[fold.test].sum() == 3
    assert split_folds(labels, 4, seed=1) == folds
    assert split_folds(labels, 4, seed=2) != folds
    with pytest.raises(DatasetError, match=r"^num_folds: expected 3 to 12, .* got 13"):
        split_folds(labels, 13, seed=1)


def test_cross_validation_stops_resumes_and_summarizes(root, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(root, out, "--folds", 2) == 0
    *folds, summary = metrics(out)
    assert [line["fold"] for line in folds] == [0, 1]
    assert summary["folds"] == 2
    assert summary["test_accuracy"] == pytest.approx(sum(line["test_accuracy"] for line in folds) / 2)
    for line in folds:
        *own, last = metrics(out / f"fold_{line['fold']}")
        assert line["val_accuracy"] == max(epoch["val_accuracy"] for epoch in own)
        assert line["test_accuracy"] == last["test_accuracy"]
        assert not any(name.startswith("test") for epoch in own for name in epoch)  # test graphs are looked at once
        assert sum(line[name] for name in line if name.startswith("confusion_")) == 6
    assert (out / "curves.png").exists()
    assert (out / "confusion.png").exists()
    before = (out / "fold_0" / "metrics.jsonl").read_bytes()
    assert train(root, out, "--folds", 3, "--resume") == 0
    assert (out / "fold_0" / "metrics.jsonl").read_bytes() == before
    assert metrics(out)[-1]["folds"] == 3
    assert run("eval", out / "fold_1", "--json", "--root", root) == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert measured["test_accuracy"] == pytest.approx(metrics(out / "fold_1")[-1]["test_accuracy"])
    assert train(root, out, "--folds", 1, "--overwrite") == 0
    assert not (out / "fold_1").exists()


EPOCH = {"epoch": 1, "chosen_epoch": 1, "seconds": 1.0} | {
    f"confusion_{truth}_{answer}": 3.0 for truth in (0, 1) for answer in (0, 1)
}
EPOCH |= {f"{split}_{measure}": 0.5 for split in ("train", "val", "test") for measure in ("loss", "accuracy")}


def drop(name):
    return lambda line: {key: value for key, value in line.items() if key != name}


@pytest.mark.parametrize(
    "change",
    [
        *(lambda line, name=name: line | {name: "x"} for name in ("epoch", "val_loss", "train_loss", "confusion_0_1")),
        *(lambda line, number=number: line | {"test_accuracy": number} for number in (10**400, True, math.inf)),
        *(drop(name) for name in ("seconds", "test_accuracy", "val_accuracy", "confusion_0_0")),
    ],
)
def test_damaged_metrics_of_a_finished_fold_are_one_line(tmp_path, change):
    def finished(line):
        lines = (line, line, {"summary": True, "chosen_by": "validation"} | line)
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
        return cross_validation._finished(RunFolder(tmp_path))

    *epochs, summary = finished(EPOCH)
    assert epochs == [EPOCH, EPOCH]
    assert summary["test_accuracy"] == EPOCH["test_accuracy"]
    with pytest.raises(UserError, match=r"cannot read .*metrics\.jsonl: "):
        finished(change(EPOCH))


def test_folds_of_different_classes_have_no_sum():
    assert cross_validation.sum_confusion([EPOCH, EPOCH]).tolist() == [[6, 6], [6, 6]]
    with pytest.raises(UserError, match=r"the same number of classes in all, got \[1, 2\]"):
        cross_validation.sum_confusion([EPOCH, drop("confusion_1_1")(EPOCH)])


def test_bad_requests_are_one_line(root, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(root, out, "--folds", 5) == 2
    assert "folds: expected 1 to 4, got 5" in capsys.readouterr().err
    assert train(root, out, "--pooling", "median") == 2
    assert "pooling" in capsys.readouterr().err
    assert not out.exists()


def test_the_gates_of_a_fold_are_drawn_on_one_of_its_graphs(root, tmp_path, capsys):
    out, picture = tmp_path / "run", tmp_path / "heard.png"
    assert train(root, out, "--folds", 1, "--blocks", 1) == 0
    capsys.readouterr()
    where = ("show", "graph", "--run", out / "fold_0", "--root", root, "--out", picture)
    assert run(*where, "--graph", 3, "--node", 2) == 0
    assert picture.stat().st_size > 10_000
    for words, message in (
        (("--graph", 24, "--node", 0), "graph: expected one from 0 to 23, got 24"),
        (("--graph", 0, "--node", 3), "node: expected a number from 0 to 2, got '3'"),
    ):
        assert run(*where, *words) == 2
        assert message in capsys.readouterr().err


def test_hubs_have_no_gate_of_their_own_for_each_edge():
    assert edge_gates(0, 0, 2) == {"max_edges": 1}
    assert edge_gates(16, 0, 2) == {"max_edges": 16}
    assert edge_gates(1000, 3, 2) == {"max_edges": 1000}  # of no effect where edges have features
    sizes = {"input_dim": 3, "output_dim": 2, "num_blocks": 1, "num_heads": 2}
    config = pLSTMGraphModelConfig(**sizes, **edge_gates(1000, 0, 2))
    assert config.num_heads == 2
    assert count_parameters(config) < 300_000
