import json
import subprocess
import sys

import pytest

from plstm_torch.cli import app

DIGITS = ["--dim", "8", "--heads", "2", "--blocks", "2", "--patch-size", "4", "--batch-size", "512", "--device", "cpu"]
TEXT = ["--dim", "16", "--heads", "2", "--blocks", "1", "--context-length", "16", "--batch-size", "8"]
ARROWS = ["--size", "16", "--train-images", "16", "--test-images", "6", "--batch-size", "8"]
ARROWS += ["--dim", "8", "--heads", "2", "--blocks", "2", "--patch-size", "8", "--device", "cpu"]


@pytest.fixture
def run(capsys):
    def run(*words):
        with pytest.raises(SystemExit) as exit_:
            app([str(word) for word in words], prog_name="plstm-torch")
        captured = capsys.readouterr()
        return exit_.value.code, captured.out, captured.err

    return run


@pytest.fixture
def refused(run):
    """Run a command that has to fail, and return its one line on stderr."""

    def refused(*words):
        code, out, err = run(*words)
        assert code == 2, (out, err)
        assert err.count("\n") == 1, err
        assert err.endswith("\n")
        assert err.startswith("plstm-torch: error: ")
        assert out == ""
        return err

    return refused


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_bytes(b"to be, or not to be, that is the question. " * 20)
    return path


@pytest.fixture(scope="module")
def text_run(tmp_path_factory, text_file):
    folder = tmp_path_factory.mktemp("runs") / "text"
    words = ["train", "text", text_file, *TEXT, "--epochs", "2", "--out", folder, "--sample-length", "30"]
    with pytest.raises(SystemExit) as exit_:
        app([str(word) for word in words])
    assert exit_.value.code == 0
    return folder


def test_help_and_version_need_no_command(run):
    code, out, _ = run()
    assert code == 0
    assert all(command in out for command in ("train", "eval", "generate", "show", "check"))
    code, out, _ = run("--version")
    assert (code, out.split()[0]) == (0, "plstm-torch")
    code, out, _ = run("train", "arrows", "--help")
    assert code == 0
    assert "--preset" in out


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "plstm_torch", "train", "chess"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "plstm-torch: error: No such command 'chess'.\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fly"], "No such command 'fly'"),
        (["train"], "Missing command"),
        (["train", "digits", "--epochs", "many"], "Invalid value for '--epochs'"),
        (["train", "digits", "--no-such-option"], "No such option"),
        (["train", "digits", "--epochs", "0"], "epochs=0: expected at least 1"),
        (["train", "digits", "--learning-rate", "-1"], "learning_rate=-1.0: expected a positive number"),
        (["train", "digits", "--dtype", "float8"], "dtype='float8': expected one of float32, bfloat16"),
        (["train", "digits", "--threads", "0"], "threads=0: expected at least 1"),
        (["train", "digits", "--patch-size", "3"], "resolution=(8, 8) is not divisible by patch_size=3"),
        (["train", "digits", "--heads", "5"], "dim=64: expected a multiple of num_heads=5"),
        (["train", "digits", "--blocks", "1"], "num_blocks=1: expected an even number"),
        (["train", "digits", "--device", "abacus"], "device='abacus': expected auto, cpu, cuda or cuda:N"),
        (["train", "digits", "--device", "cuda:99"], "device='cuda:99': torch sees"),
        (["train", "digits", "--resume"], "holds no run (no training.json)"),
        (["train", "digits", "--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
        (["train", "arrows", "--preset", "huge"], "--preset 'huge': expected one of quick, mixed, paper"),
        (["train", "arrows", "--size", "30"], "image size 30: expected a multiple of patch_size=4"),
        (["train", "arrows", "--scaling", "up"], "scaling='up': expected 'pixels' or 'relative'"),
        (["train", "text"], "Missing argument"),
        (["train", "text", "/no/such/file"], "cannot read /no/such/file: No such file or directory"),
        (["eval", "nowhere"], "nowhere holds no run (no training.json)"),
        (["generate", "nowhere"], "nowhere holds no run (no training.json)"),
        (["show"], "Missing command"),
        (["show", "receptive-field", "--angle", "1.5"], "angle=(1.5,): expected one or more numbers between 0 and 1"),
        (["show", "receptive-field", "--out", "field.doc"], "expected a name that ends in .png, .svg or .pdf"),
        (
            ["show", "receptive-field", "--out", "/no/such/folder/a.png"],
            "there is no folder /no/such/folder",
        ),
    ],
)
def test_bad_input_is_one_line_and_code_two(words, message, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(*words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "package", "words"),
    [
        ("sklearn.datasets", "scikit-learn", ["train", "digits"]),
        ("PIL.Image", "pillow", ["train", "arrows"]),
        ("matplotlib", "matplotlib", ["train", "digits"]),
        ("matplotlib.figure", "matplotlib", ["show", "receptive-field"]),
    ],
)
def test_a_missing_package_is_one_line(module, package, words, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    assert f'{package} is not installed; run: pip install "plstm-torch[train]"' in refused(*words)


def test_digits_from_training_to_evaluation(run, refused, tmp_path):
    folder = tmp_path / "digits"
    code, out, _ = run("train", "digits", "--epochs", "1", *DIGITS, "--out", folder)
    assert code == 0
    assert "epoch   1/1" in out
    assert f"run folder: {folder}" in out
    assert {path.name for path in folder.iterdir()} == {
        "training.json",
        "config.json",
        "model.safetensors",
        "checkpoint.pt",
        "metrics.jsonl",
        "curves.png",
        "examples.png",
    }
    summary = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    code, out, _ = run("eval", folder, "--device", "cpu", "--json")
    assert code == 0
    measured = json.loads(out)
    assert measured["test_accuracy"] == summary["test_accuracy"]
    assert measured["test_loss"] == pytest.approx(summary["test_loss"], rel=1e-6)
    code, out, _ = run("eval", folder, "--device", "cpu")
    assert code == 0
    assert "test accuracy" in out

    assert "is not empty; continue with --resume, start anew with --overwrite" in refused(
        "train", "digits", "--out", folder
    )
    resume = ("--resume", "--out", folder)
    assert "holds a run of 'digits', not of 'arrows'" in refused("train", "arrows", *resume)
    message = refused("train", "digits", *resume, "--epochs", "7")
    assert "epochs=7: a resumed run keeps its settings, here epochs=1" in message
    assert "dim=16: a resumed run keeps its settings, here dim=8" in refused("train", "digits", *resume, "--dim", "16")
    assert "generate: expected a run of text" in refused("generate", folder)
    assert "--size: expected a run of arrows" in refused("eval", folder, "--size", "16")
    assert "--file: expected a run of text" in refused("eval", folder, "--file", "x")
    assert run("train", "digits", *resume, "--epochs", "1", "--threads", "1")[0] == 0
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert "cannot load the model in" in refused("eval", folder)


def test_arrows_are_trained_at_one_size_and_tested_at_two(run, refused, tmp_path):
    folder = tmp_path / "arrows"
    code, out, _ = run("train", "arrows", *ARROWS, "--steps", "3", "--out", folder)
    assert code == 0
    assert "test accuracy 32" in out
    summary = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"test_accuracy", "test_accuracy_32"} <= set(summary)
    code, out, _ = run("eval", folder, "--size", "48", "--json", "--device", "cpu")
    assert code == 0
    assert set(json.loads(out)) == {"task", "test_loss", "test_accuracy", "test_accuracy_48"}
    assert "image size 20: expected a multiple of patch_size=8" in refused("eval", folder, "--size", "20")
    assert run("train", "arrows", *ARROWS, "--steps", "3", "--out", folder, "--resume")[0] == 0


def test_a_text_is_trained_measured_and_continued(run, refused, text_run, text_file, tmp_path):
    summary = json.loads((text_run / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < summary["bits_per_byte"] < 8
    assert len((text_run / "sample.txt").read_bytes()) >= 64 + 30
    code, out, _ = run("eval", text_run, "--json")
    assert code == 0
    assert json.loads(out)["bits_per_byte"] == pytest.approx(summary["bits_per_byte"], rel=1e-6)
    other = tmp_path / "other.txt"
    other.write_bytes(bytes(range(256)) * 4)
    code, out, _ = run("eval", text_run, "--json", "--file", other)
    assert json.loads(out)["bits_per_byte"] > summary["bits_per_byte"]
    changed = tmp_path / "run"
    changed.mkdir()
    settings = (text_run / "training.json").read_text()
    (changed / "training.json").write_text(settings.replace(str(text_file), str(other)))
    assert "is not the text that this run began with" in refused("eval", changed)


def test_generation_is_reproducible_and_continues_the_prompt(text_run, refused):
    command = [sys.executable, "-m", "plstm_torch", "generate", text_run, "--prompt", "to be", "--length", "9"]
    first, again = (subprocess.run([*command, "--seed", "3"], capture_output=True, check=True).stdout for _ in range(2))
    assert first == again
    assert first.startswith(b"to be")
    assert len(first) == len("to be") + 9 + 1
    assert "temperature: expected a finite number >= 0" in refused("generate", text_run, "--temperature", "-1")
    assert "prompt: expected at least one byte" in refused("generate", text_run, "--prompt", "")


def test_a_diverging_run_is_one_line_and_code_one(run, tmp_path):
    words = ["--learning-rate", "1e30", "--gradient-clip", "0", "--warmup-epochs", "0"]
    code, _, err = run("train", "digits", "--epochs", "3", *DIGITS, *words, "--out", tmp_path / "run")
    assert code == 1
    assert err.startswith("plstm-torch: error: the loss became ")
    assert err.count("\n") == 1


def test_the_receptive_field_is_drawn(run, tmp_path):
    path = tmp_path / "field.png"
    code, out, _ = run("show", "receptive-field", "--size", "10", "--angle", "0.3", "--out", path)
    assert (code, out.strip()) == (0, str(path))
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_signal_on_a_graph_is_drawn(run, refused, tmp_path):
    path = tmp_path / "graph.png"
    code, out, _ = run("show", "graph", "--layers", "4", "--width", "3", "--seed", "1", "--out", path)
    assert (code, out.strip()) == (0, str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "layers=1: expected at least 2" in refused("show", "graph", "--layers", "1", "--out", path)
