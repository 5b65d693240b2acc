"""The command line among strangers' folders, full disks, impatient users and other runs."""

import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

import plstm_config as pc
from plstm_torch import build, from_pretrained, save_pretrained
from plstm_torch.cli import app

MODEL = ["--dim", "8", "--heads", "2", "--blocks", "2", "--patch-size", "4", "--device", "cpu", "--threads", "1"]
COMMAND = [sys.executable, "-m", "plstm_torch"]


@pytest.fixture
def run(capsys):
    def run(*words):
        with pytest.raises(SystemExit) as exit_:
            app([str(word) for word in words])
        captured = capsys.readouterr()
        assert captured.err.count("\n") <= 1, captured.err
        return exit_.value.code, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of digits of two steps."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    with pytest.raises(SystemExit) as exit_:
        app(["train", "digits", *MODEL, "--steps", "2", "--out", str(folder)])
    assert exit_.value.code == 0
    return folder


@pytest.fixture
def digits(finished, tmp_path):
    """A copy of that run."""
    return shutil.copytree(finished, tmp_path / "digits")


@pytest.fixture
def shapes(tmp_path):
    """Rings and paths in the files of the TU collection."""
    folder = tmp_path / "datasets" / "SHAPES" / "raw"
    folder.mkdir(parents=True)
    edges, owners = [], []
    for graph in range(12):
        first = len(owners) + 1
        edges += [f"{first + i}, {first + i + 1}" for i in range(2)] + [f"{first + 2}, {first}"] * (graph % 2)
        owners += [str(graph + 1)] * 3
    files = {"A": edges, "graph_indicator": owners, "graph_labels": [str(graph % 2) for graph in range(12)]}
    for name, lines in files.items():
        (folder / f"SHAPES_{name}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path / "datasets"


@pytest.fixture
def graphs(run, shapes, tmp_path):
    """The words that train on them."""
    common = ("--dim", 8, "--heads", 2, "--num-folds", 3, "--folds", 1, "--epochs", 1, "--threads", 1)
    words = ("train", "graphs", "--dataset", "SHAPES", "--root", shapes, "--out", tmp_path / "run", *common)
    assert run(*words)[0] == 0
    return words


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_strangers_run_folder_runs_no_code_and_reads_nothing_it_names(run, graphs, shapes, tmp_path):
    trap = tmp_path / "code ran"
    for place in (shapes / "SHAPES" / "processed", tmp_path / "run" / "fold_0", tmp_path / "run"):
        place.mkdir(exist_ok=True)
        for name in ("data.pt", "pre_transform.pt", "pre_filter.pt", "checkpoint.pt"):
            (place / name).write_bytes(pickle.dumps(Evil(trap)))
    fold = tmp_path / "run" / "fold_0"
    code, _, err = run("eval", fold)
    assert code == 2
    assert "--root: expected the data to measure on (the run names" in err
    assert run("eval", fold, "--root", shapes)[0] == 0
    (fold / "metrics.jsonl").unlink()
    code, _, err = run(*graphs, "--resume")
    assert code == 2
    assert "checkpoint.pt: it is truncated or no checkpoint of plstm-torch" in err
    assert not trap.exists()


def test_a_run_folder_cannot_lead_out_of_the_root(run, graphs, shapes, tmp_path):
    path = tmp_path / "run" / "fold_0" / "training.json"
    stored = json.loads(path.read_text())
    stored["data"]["dataset"] = "../../secret"
    path.write_text(json.dumps(stored))
    code, _, err = run("eval", path.parent, "--root", shapes)
    assert code == 2
    assert "dataset: expected a name of letters" in err


@pytest.fixture
def text(run, tmp_path):
    """A run of text of two steps, and the text."""
    file = tmp_path / "text.txt"
    file.write_bytes(b"to be, or not to be, that is the question. " * 20)
    words = ("--dim", 8, "--heads", 2, "--blocks", 1, "--context-length", 16, "--steps", 2, "--threads", 1)
    assert run("train", "text", file, *words, "--sample-length", 0, "--out", tmp_path / "text")[0] == 0
    return tmp_path / "text", file


STRANGERS = {
    "pLSTMGraphModel": pc.pLSTMGraphModelConfig(input_dim=3, output_dim=2, dim=8, num_heads=2, num_blocks=1),
    "has_head": pc.preset("plstm_vis_tiny", dim=8, num_heads=2, num_blocks=1, num_channels=1, num_classes=0),
    "num_channels": pc.preset("plstm_vis_tiny", dim=8, num_heads=2, num_blocks=1, num_classes=10),
    "vocab_size": pc.preset("plstm_lm_small", embedding_dim=8, num_heads=2, num_blocks=1, vocab_size=7),
    "Linear": pc.LinearConfig(input_dim=8, output_dim=10),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_another_model_in_a_run_folder_is_one_line(run, digits, text, kind):
    folder, file = text
    for words in (("eval", digits), ("eval", folder, "--file", file), ("generate", folder)):
        save_pretrained(build(STRANGERS[kind]), words[1])
        code, _, err = run(*words)
        assert code == 2
        assert "config.json: " in err
        assert ": expected " in err


def test_a_model_that_reads_text_from_both_ends_predicts_none(run, text):
    folder, file = text
    layer = "block_stack.block.interaction_module.bidirectional"
    save_pretrained(build(pc.change(from_pretrained(folder).config, {layer: True})), folder)
    for words in (("eval", folder, "--file", file), ("generate", folder)):
        code, _, err = run(*words)
        assert code == 2
        assert "text: expected a causal module, got pLSTMLMModel with bidirectional=True" in err


def test_a_model_that_cannot_read_what_is_measured_is_one_line(run, digits):
    config = from_pretrained(digits).config
    save_pretrained(build(pc.change(config, {"resolution": (16, 16), "pos_embed.allow_interpolation": False})), digits)
    code, _, err = run("eval", digits)
    assert code == 2
    assert "cannot measure the model in" in err


def test_weights_that_are_no_numbers_are_one_line_and_no_measure(run, digits, text):
    folder, file = text
    for path in (digits, folder):
        model = from_pretrained(path)
        for parameter in model.parameters():
            torch.nn.init.constant_(parameter, torch.nan)
        save_pretrained(model, path)
    for words in (("eval", digits), ("eval", digits, "--json"), ("eval", folder, "--file", file)):
        code, out, err = run(*words)
        assert (code, out) == (1, "")
        assert "is nan" in err
    for options in ((), ("--temperature", 0), ("--top-k", 2), ("--top-p", 0.5)):
        code, _, err = run("generate", folder, *options)
        assert code == 1
        assert "predicts no byte" in err


def test_control_sequences_do_not_reach_the_terminal(run, digits):
    (digits / "training.json").write_text(json.dumps({"schema_version": "\x1b]0;owned\x07\n\x9b2J"}))
    _, _, err = run("eval", digits)
    assert err.endswith("\n")
    assert err[:-1].isprintable()


def test_graphs_that_changed_are_noticed(run, graphs, shapes, tmp_path):
    labels = shapes / "SHAPES" / "raw" / "SHAPES_graph_labels.txt"
    labels.write_text("".join(f"{1 - graph % 2}\n" for graph in range(12)))
    for words in ((*graphs, "--resume"), ("eval", tmp_path / "run" / "fold_0", "--root", shapes)):
        code, _, err = run(*words)
        assert code == 2
        assert "does not hold the data that this run began with (they have changed)" in err


def test_a_wrong_root_leaves_no_folders(run, tmp_path, monkeypatch):
    monkeypatch.setattr("plstm_testing.datasets.tu_download.SITE", (tmp_path / "no-site").as_uri())
    monkeypatch.chdir(tmp_path)
    code, _, err = run("train", "graphs", "--root", tmp_path / "wrong" / "root")
    assert code == 2
    assert "does not hold MUTAG, and it cannot be downloaded" in err
    assert f"data of your own are {tmp_path / 'wrong' / 'root' / 'MUTAG' / 'raw' / 'MUTAG_A.txt'}, " in err
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_checkpoint_or_weights_says_so(run, digits):
    for name in ("checkpoint.pt", "model.safetensors"):
        (digits / name).unlink()
    code, _, err = run("train", "digits", *MODEL, "--out", digits, "--resume")
    assert code == 2
    assert "has no checkpoint to continue from; start anew with --overwrite" in err
    code, _, err = run("eval", digits)
    assert code == 1
    assert "holds no trained model, its first epoch was not finished" in err


def test_a_run_that_diverges_exits_with_one_and_stays_json(run, tmp_path):
    out = tmp_path / "run"
    code, _, err = run("train", "digits", *MODEL, "--steps", "1", "--learning-rate", "1e20", "--out", out)
    assert code == 1
    assert "try a lower --learning-rate" in err
    assert not (out / "metrics.jsonl").exists()
    assert run("eval", out)[0] == 1


def limit_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def test_a_full_disk_is_one_line_and_leaves_what_was_there(digits, tmp_path):
    before = {path.name: path.read_bytes() for path in digits.iterdir()}
    for words in (
        ["train", "digits", *MODEL, "--steps", "2", "--out", str(digits), "--resume"],
        ["train", "digits", *MODEL, "--steps", "2", "--out", str(tmp_path / "new")],
    ):
        done = subprocess.run(
            [*COMMAND, *words],
            preexec_fn=limit_files,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},  # Python keeps half a module where there is no room
        )
        assert done.returncode == 1, done.stderr
        assert done.stderr.startswith("plstm-torch: error: cannot write ")
        assert "File too large" in done.stderr
        assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [".lock", "training.json"]
    after = {path.name: path.read_bytes() for path in digits.iterdir()}
    assert after.keys() == before.keys()
    for name in ("checkpoint.pt", "model.safetensors", "config.json", "training.json"):
        assert after[name] == before[name]


def buffered():
    """The environment in which output waits until there is much of it, as it does for users."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["info"], ["info", "--json"]])
def test_output_that_has_no_room_is_one_line(digits, words):
    command = [*COMMAND, *words[:1], *([str(digits)] if words[0] == "info" else []), *words[1:]]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=buffered(), check=False)
    assert done.returncode == 1
    assert done.stderr == "plstm-torch: error: output: No space left on device\n"


def test_a_reader_that_has_seen_enough_is_no_error(digits):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "info", str(digits)], stdout=writer, stderr=subprocess.PIPE, text=True, env=buffered(), check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def start(out, *words):
    command = [*COMMAND, "train", "digits", *MODEL, "--checkpoint-every", "1", "--out", str(out), *words]
    # what a shell starts in its background ignores interrupts, and so would this child
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    deadline = time.monotonic() + 60
    while not (out / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


def test_another_run_in_the_folder_is_refused_and_ctrl_c_is_answered(run, tmp_path):
    out = tmp_path / "run"
    process = start(out, "--epochs", "1000")
    for words in (["--resume", "--epochs", "1000"], ["--overwrite"]):
        code, _, err = run("train", "digits", *MODEL, "--out", out, *words)
        assert code == 2
        assert "run is in use by another run; wait for it or choose another --out" in err
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("plstm-torch: error: interrupted; a run that has begun continues from its last checkpoint")
    assert err.count("\n") == 1
    assert not [name for name in os.listdir(out) if name.startswith(".unfinished")]
