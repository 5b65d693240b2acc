"""The studies of the repository: their data are right, their scripts run, their pages say what was measured."""

import importlib
import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

import plstm_torch

STUDIES = Path(__file__).parents[3] / "studies"
TASKS = ("parity", "s3", "s5")


@pytest.fixture
def words(monkeypatch):
    monkeypatch.syspath_prepend(str(STUDIES))
    return importlib.import_module("words")


@pytest.fixture
def study(words):
    return importlib.import_module("state_tracking")


@pytest.fixture
def report(words):
    return importlib.import_module("state_tracking_report")


@pytest.mark.parametrize("name", TASKS)
def test_products_form_a_group(words, name):
    table = words.TASKS[name].table
    every = np.arange(len(table))
    assert (np.sort(table, axis=0) == every[:, None]).all()
    assert (np.sort(table, axis=1) == every).all()
    assert (table[0] == every).all()
    assert (table[:, 0] == every).all()
    assert (table[table] == table[:, table]).all()  # (a b) c and a (b c)


@pytest.mark.parametrize("name", TASKS)
def test_tokens_generate_the_group(words, name):
    task = words.TASKS[name]
    table, reached = task.table, {0}
    while len(more := reached | {table[a, b] for a, b in product(reached, task.tokens)}) > len(reached):
        reached = more
    assert len(reached) == len(table)


@pytest.mark.parametrize("name", TASKS)
def test_targets_are_the_products_of_the_prefixes(words, name):
    task = words.TASKS[name]
    inputs, targets = words.Words(task, 1).draw(3, 20)
    assert (inputs[:, 0] == task.start).all()
    for word, answers in zip(inputs, targets, strict=True):
        matrix = np.eye(task.degree)
        for token, answer in zip(word[1:], answers[1:], strict=True):
            matrix = matrix @ np.eye(task.degree)[:, task.elements[token]]  # column i is that of the image of i
            assert tuple(matrix.argmax(0)) == task.elements[answer]


def test_targets_of_parity_count_ones(words):
    inputs, targets = words.Words(words.TASKS["parity"], 0).draw(5, 12)
    assert (targets[:, 1:] == np.cumsum(inputs[:, 1:], axis=1) % 2).all()


def test_rows_are_bounded(study):
    torch.manual_seed(0)
    blocks = study.BoundedRows(features=8, heads=2, dim=3, spread=2.0)(torch.randn(5, 8))
    assert blocks.shape == (5, 2, 3, 3)
    assert blocks.abs().sum(-1).max() < 1 + 1e-6


def test_eigenvalues_start_alike(study):
    settings = study.Settings()
    for kind in ("positive", "negative", "orthogonal"):
        layer = plstm_torch.build(study.layer_config(study.VARIANTS[kind], settings))
        transition = layer.transition(torch.zeros(1, settings.width))
        assert torch.linalg.svdvals(transition).allclose(torch.tensor(settings.eigenvalue_start), atol=1e-3)


def test_lengths_grow_up_to_the_last(study):
    settings = study.Settings()
    lengths = [study.length_at(step, settings) for step in range(settings.steps)]
    assert lengths == sorted(lengths)
    assert set(lengths) == set(settings.stages)


def test_runs_once_and_stops_in_time(study, report, tmp_path, capsys):
    arguments = ["--tiny", "--out", str(tmp_path), "--seeds", "3", "--task", "s5"]
    study.main([*arguments, "--minutes", "0"])
    assert "goes on from here" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    study.main(arguments)
    assert len(capsys.readouterr().out.splitlines()) == len(study.VARIANTS)
    study.main([*arguments, "--minutes", "0"])
    assert capsys.readouterr().out == ""

    results, plan = report.load(tmp_path), study.plan()
    assert set(results) == {("s5", kind) for kind in study.VARIANTS}
    written = report.table(results, plan, seeds=[3, 4])
    assert written.count("3 (4 not run)") == len(results)
    assert written.count("| not run |") == len(plan["parity"]) + len(plan["s3"])
    report.draw(results, plan).savefig(tmp_path / "picture.png")


def test_tiny_runs_are_kept_apart(study, capsys):
    with pytest.raises(SystemExit):
        study.main(["--tiny"])
    assert "--out" in capsys.readouterr().err


def test_results_are_of_the_settings(study):
    def stored(one):
        return json.loads(json.dumps(study.asdict(one)))

    for path in study.RESULTS.glob("*.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        assert found["settings"] == stored(study.Settings()), path.name
        assert found["variant"] == stored(study.VARIANTS[found["transition"]]), path.name


def test_page_holds_the_results(study, report):
    page = report.PAGE.read_text(encoding="utf-8")
    assert page == report.with_table(page, report.table(report.load(study.RESULTS), study.plan(), study.SEEDS))


@pytest.fixture
def distant_labels(monkeypatch):
    pytest.importorskip("torch_geometric")
    monkeypatch.syspath_prepend(str(STUDIES))
    module = importlib.import_module("distant_labels")
    monkeypatch.setattr(module, "CASCADES", 8)
    return module


def test_labels_stand_as_far_away_as_the_steps_say(distant_labels):
    graph = distant_labels.draw_graph(0, misleading=0.3)
    again = distant_labels.draw_graph(0, misleading=0.3)
    assert torch.equal(graph.x, again.x)
    assert np.array_equal(graph.edges, again.edges)
    parts = np.concatenate(list(graph.parts.values()))
    assert np.array_equal(np.sort(parts), np.arange(len(graph.x)))
    sources = graph.x[:, distant_labels.CLASSES] == 1
    assert torch.equal(sources, torch.from_numpy(graph.steps == 0))
    assert torch.equal(graph.x[sources, : distant_labels.CLASSES].argmax(-1), graph.labels[sources])
    inside = graph.edges[graph.edges[:, 0] // distant_labels.LENGTH == graph.edges[:, 1] // distant_labels.LENGTH]
    assert (graph.steps[inside[:, 1]] == graph.steps[inside[:, 0]] + 1).all()


def test_models_of_distant_labels_train(distant_labels):
    graph = distant_labels.draw_graph(1, misleading=0.3)
    for name, settings in distant_labels.models():
        found = distant_labels.measure(graph, settings[:1], seed=1, epochs=1)
        assert {"test", "near", "between", "far", "validation", "parameters"} <= set(found), name


def test_distant_labels_are_drawn_from_the_results(distant_labels, tmp_path):
    """The pLSTM is one of its forms for each seed, chosen on validation, as in the table of the page."""
    models = json.loads((STUDIES / "results/distant_labels.json").read_text(encoding="utf-8"))["models"]
    found = distant_labels.joined(models)["pLSTM, 4 layers"]
    assert [one["seed"] for one in found] == [0, 1, 2]
    assert np.median([one["test"] for one in found]) == pytest.approx(0.868, abs=5e-4)
    distant_labels.draw(models, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000
