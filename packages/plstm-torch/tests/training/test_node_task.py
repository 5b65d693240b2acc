"""Node classification on a graph from two CSV files."""

import json

import numpy as np
import pytest

from plstm_torch.cli import app
from plstm_torch.optional import UserError
from plstm_torch.settings import NodesSettings
from plstm_torch.training.node_graph import load_node_graph
from plstm_torch.training.node_task import NodesTask

SIZES = ["--dim", "16", "--heads", "2", "--blocks", "1", "--epochs", "4", "--device", "cpu"]


@pytest.fixture
def chain(tmp_path):
    """Four chains of ten nodes; each has the class that its first node shows."""
    nodes, edges = ["id,label,shown"], ["source,target,weight"]
    for each in range(4):
        nodes += [f"n{each}_{place},{'ab'[each % 2]},{each % 2 if place == 0 else 0.5}" for place in range(10)]
        edges += [f"n{each}_{place},n{each}_{place + 1},1.5" for place in range(9)]
    return write(tmp_path, edges, nodes)


def write(folder, edges, nodes):
    paths = (folder / "edges.csv", folder / "nodes.csv")
    for path, lines in zip(paths, (edges, nodes), strict=True):
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tuple(map(str, paths))


def load(paths, **settings):
    return load_node_graph(NodesSettings(edges=paths[0], nodes=paths[1], **settings))


def test_columns_become_features_labels_and_edges(chain):
    data = load(chain)
    assert data.classes == ("a", "b")
    assert data.ids[:2] == ("n0_0", "n0_1")
    assert data.graph.x.shape == (40, 1)
    assert data.graph.edge_attr.tolist() == [[1.5]] * 36
    assert data.graph.topology.edges[0].tolist() == [0, 1]
    everyone = [*data.train, *data.held_out["validation"], *data.held_out["test"]]
    assert sorted(everyone) == list(range(40))
    assert np.bincount(data.labels[data.held_out["test"]]).tolist() == [4, 4]
    assert load(chain).digest == data.digest


def test_a_column_says_which_nodes_are_for_what(tmp_path):
    nodes = ["id,label,split", "1,x,train", "2,y,train", "3,x,val", "4,y,test", "5,,train"]
    data = load(write(tmp_path, ["source,target", "1,2", "4,3"], nodes), undirected=True)
    assert (data.train.tolist(), data.held_out["validation"].tolist(), data.held_out["test"].tolist()) == (
        [0, 1],
        [2],
        [3],
    )
    assert data.labels[4] == -1
    assert sorted(data.graph.topology.edges.tolist()) == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("edges", "nodes", "message"),
    [
        (["a,b", "1,2"], ["id,label", "1,x", "2,y"], "edges: expected the columns source, target in .*, got 'a, b'"),
        (["source,target"], ["id,label", "1,x", "2,y"], "edges: expected lines below the header"),
        (
            ["source,target", "1,9"],
            ["id,label", "1,x", "2,y"],
            "edges: expected ids of the nodes in .*, got the target '9'",
        ),
        (["source,target", "1,2,3"], ["id,label", "1,x", "2,y"], "edges: expected 2 values in line 2 of"),
        (
            ["source,target", "1,2", "2,1"],
            ["id,label", "1,x", "2,y"],
            "edges: expected those of a graph in .*cycle 0 -> 1 -> 0.*nodes count from 0 as .*nodes.csv.*--undirected",
        ),
        (["source,target", "1,2"], ["id,label", "1,x", "1,y"], "nodes: expected each id once"),
        (
            ["source,target", "1,2"],
            ["id,label", "1,x", "2,x"],
            "nodes: expected labels of at least two classes in .*, got 1",
        ),
        (
            ["source,target", "1,2"],
            ["id,label,f", "1,x,0", "2,y,nan"],
            "expected a finite number in column 'f', line 3, got 'nan'",
        ),
        (
            ["source,target", "1,2"],
            ["id,label,split", "1,x,up", "2,y,test"],
            "expected train, val or test .*, got 'up'",
        ),
        (["source,target", "1,2"], ["id,label,split", "1,x,val", "2,y,test"], "expected nodes with a label for train"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path, edges, nodes, message):
    with pytest.raises(UserError, match=message):
        load(write(tmp_path, edges, nodes))


def run(*words):
    with pytest.raises(SystemExit) as stopped:
        app([str(word) for word in words])
    return stopped.value.code


def test_a_graph_is_trained_measured_and_extended(chain, tmp_path, capsys):
    out = tmp_path / "run"
    assert run("train", "nodes", *chain, *SIZES, "--out", out) == 0
    summary = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    predictions = (out / "predictions.csv").read_text().splitlines()
    assert predictions[0] == "id,label"
    assert len(predictions) == 41
    capsys.readouterr()
    assert run("eval", out, "--edges", chain[0], "--nodes", chain[1], "--device", "cpu", "--json") == 0
    assert json.loads(capsys.readouterr().out)["test_accuracy"] == summary["test_accuracy"]
    assert run("eval", out, "--edges", chain[0]) == 2
    assert "--nodes: expected the data to measure on" in capsys.readouterr().err
    assert run("train", "nodes", *chain, "--out", out, "--extend", 2) == 0
    said = capsys.readouterr().out
    assert "continues after step 4 of 6, in epoch 5 of 6" in said
    assert run("train", "nodes", *chain, "--out", out, "--resume") == 0
    assert "the run is finished: all 6 steps are done" in capsys.readouterr().out
    assert run("train", "nodes", *chain, "--out", out, "--extend", 2, "--overwrite") == 2
    assert "--extend and --overwrite exclude each other" in capsys.readouterr().err


def test_the_gates_of_a_run_are_drawn_on_its_graph(chain, tmp_path, capsys):
    out, picture = tmp_path / "run", tmp_path / "heard.png"
    assert run("train", "nodes", *chain, *SIZES, "--out", out) == 0
    capsys.readouterr()
    data = ("--edges", chain[0], "--nodes", chain[1])
    assert run("show", "graph", "--run", out, *data, "--node", "n0_9", "--largest", 12, "--out", picture) == 0
    assert capsys.readouterr().out.strip() == str(picture)
    assert picture.stat().st_size > 10_000
    for words, message in (
        (("--run", out, *data), "node: expected the one that listens, since there is a --run, got None"),
        (("--node", "n0_9"), "node: expected none without --run, got 'n0_9'"),
        (("--edges", chain[0]), "edges: expected none without --run"),
        (("--run", out, *data, "--node", "7"), "node: expected an id such as 'n0_0', got '7'"),
        (("--run", out, "--edges", chain[0], "--node", "n0_9"), "--nodes: expected the data to measure on"),
        (("--run", tmp_path, *data, "--node", "n0_9"), "holds no run"),
    ):
        assert run("show", "graph", *words, "--out", picture) == 2
        assert message in capsys.readouterr().err


def test_a_hub_has_no_gate_of_its_own_for_each_edge(tmp_path):
    nodes = ["id,label", "hub,a", *(f"n{each},{'ab'[each % 2]}" for each in range(100))]
    paths = write(tmp_path, ["source,target", *(f"hub,n{each}" for each in range(100))], nodes)
    task = NodesTask(NodesSettings(edges=paths[0], nodes=paths[1]), 0)
    model = task.build_model("float32")
    assert sum(parameter.numel() for parameter in model.parameters()) < 300_000
    assert task.score(model, task.batch(0, range(4))).count == 4
