import json
import re
import subprocess
import sys
from dataclasses import MISSING, fields

import pytest

from plstm_torch.cli import app
from plstm_torch.settings import TASK_SETTINGS, MachineSettings, TrainingSettings

DIGITS = ["--dim", "8", "--heads", "2", "--blocks", "2", "--patch-size", "4", "--batch-size", "512", "--device", "cpu"]
TEXT = ["--dim", "16", "--heads", "2", "--blocks", "1", "--context-length", "16", "--batch-size", "8"]
ARROWS = ["--size", "16", "--train-images", "16", "--validation-images", "4", "--test-images", "6", "--batch-size", "8"]
ARROWS += ["--dim", "8", "--heads", "2", "--blocks", "2", "--patch-size", "8", "--device", "cpu"]


@pytest.fixture
def run(capsys):
    def run(*words):
        with pytest.raises(SystemExit) as exit_:
            app([str(word) for word in words])
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


@pytest.mark.parametrize("task", sorted(TASK_SETTINGS))
def test_every_setting_is_an_option_and_shows_its_default(run, task):
    code, out, _ = run("train", task, "--help")
    assert code == 0
    for cls in (TASK_SETTINGS[task], TrainingSettings, MachineSettings):
        for entry in fields(cls):
            name = entry.metadata["option"]
            if name is not None and entry.default is not MISSING:
                assert f"--{(name or entry.name).replace('_', '-')} " in out.replace(",", " "), entry.name
    options = re.findall(r"^\W*--[a-z]", out, re.MULTILINE)
    assert out.count("(default:") == len(options)


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("eval", 1),
        ("predict", 2),
        ("generate", 1),
        ("info", 1),
        ("convert", 2),
        ("completion", 1),
        ("check", 0),
        ("show receptive-field", 0),
        ("show graph", 0),
    ],
)
def test_every_help_shows_defaults_or_that_there_is_none(run, command, needed):
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    options = re.findall(r"^\W*--[a-z]", out, re.MULTILINE)
    assert out.count("(default:") + out.count("(repeatable)") == len(options)
    assert out.count("(required)") == needed


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("tr", {"train"}),
        ("train di", {"digits"}),
        ("train digits --learn", {"--learning-rate"}),
        ("train arrows --preset ", {"quick", "mixed", "paper"}),
        ("show receptive-field --im", {"--image"}),
        ("convert --over", {"--overwrite"}),
    ],
)
def test_bash_completes_commands_options_and_choices(run, tmp_path, typed, offered):
    code, script, _ = run("completion", "bash")
    assert not code
    words = ["plstm-torch", *typed.split(" ")]
    (tmp_path / "script").write_text(
        f"{script}\nCOMP_WORDS=({' '.join(repr(word) for word in words)})\nCOMP_CWORD={len(words) - 1}\n"
        '$(complete -p plstm-torch | sed "s/.*-F \\([^ ]*\\).*/\\1/") 2>/dev/null\nprintf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", str(tmp_path / "script")], capture_output=True, text=True, check=True)
    assert offered <= {word.strip() for word in done.stdout.splitlines()}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script(run, shell):
    code, script, _ = run("completion", shell)
    assert not code
    assert "learning-rate" in script


def test_help_needs_no_torch():
    code = """
import sys
from plstm_torch.cli import app
for words in ([], ["train"], *(["train", task] for task in ("digits", "arrows", "text", "graphs")), ["eval"],
              ["generate"], ["check"], ["show", "graph"], ["train", "digits", "--epochs", "x"]):
    try:
        app([*words, "--help"])
    except SystemExit as stop:
        pass
print([name for name in ("torch", "numpy", "rich", "matplotlib") if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_the_plain_installation_checks_and_says_what_the_rest_needs():
    code = """
import sys
for name in ("tyro", "rich", "filelock", "docstring_parser", "matplotlib"):
    sys.modules[name] = None
import importlib.util
importlib.util.find_spec = lambda name: None
import plstm_torch.check
plstm_torch.check.IMPLEMENTATIONS, plstm_torch.check.NATIVE_CASES = {"plstm_1d": ("recurrent",)}, {}
from plstm_torch.cli import app
for words in (["check", "--device", "cpu", "--dtype", "float64"], ["train", "digits"], ["check", "--dtype", "int8"]):
    try:
        app(words)
    except SystemExit as stop:
        print(stop.code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-4:] == ["all 1 checks passed", "0", "2", "2"]
    assert done.stderr.splitlines() == [
        'plstm-torch: error: tyro is not installed; run: pip install "plstm-torch[train]"',
        "plstm-torch: error: dtypes: expected some of 'float64', 'float32', 'bfloat16', 'float16', got 'int8'",
    ]


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "plstm_torch", "train", "chess"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("plstm-torch: error: command: expected one of plstm-torch train digits, ")


def test_prompts_are_text(refused, text_run):
    said = refused("generate", text_run, "--prompt", "\udcff")
    assert "prompt: expected text in UTF-8, got bytes that are none" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["fly"],
            "command: expected one of train, show, eval, predict, generate, info, convert, completion, check, got",
        ),
        (["train"], "command: expected one of plstm-torch train digits"),
        (["train", "digits", "--epochs", "many"], "Error parsing --epochs"),
        (["trian", "digits"], "check, got 'trian'; did you mean train?"),
        (["train", "digit"], "got 'digit'; did you mean digits?"),
        (["train", "digits", "--epoch", "3"], "Unrecognized options: --epoch, 3; did you mean --epochs?"),
        (["train", "digits", "--no-such-option"], "Unrecognized options: --no-such-option"),
        (["train", "digits", "--epochs", "0"], "epochs: expected at least 1 and at most 1048576, got 0"),
        (["train", "digits", "--learning-rate", "-1"], "learning_rate: expected above 0 and at most 1e+30, got -1.0"),
        (["train", "digits", "--dtype", "float8"], "invalid choice 'float8' for argument '--dtype'"),
        (["train", "digits", "--threads", "0"], "threads: expected at least 1 and at most 1024, got 0"),
        (["train", "digits", "--patch-size", "3"], "resolution: expected sides that patches of 3 tile, got (8, 8)"),
        (["train", "digits", "--heads", "5"], "dim: expected a multiple of --heads=5, got 64"),
        (["train", "digits", "--blocks", "1"], "--blocks: expected an even number (P and D take turns), got 1"),
        (["train", "digits", "--device", "abacus"], "device='abacus': expected auto, cpu, mps, cuda or cuda:N"),
        (["train", "digits", "--device", "cuda:99"], "device='cuda:99': torch sees"),
        (["train", "digits", "--resume"], "holds no run (no training.json)"),
        (["train", "digits", "--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
        (["train", "arrows", "--preset", "huge"], "invalid choice 'huge' for argument '--preset'"),
        (["train", "arrows", "--size", "30"], "--size: expected multiples of patch_size=4, got 30"),
        (["train", "arrows", "--scaling", "up"], "invalid choice 'up' for argument '--scaling'"),
        (["train", "text"], "FILE: expected at least one, got ()"),
        (["train", "text", "/no/such/file"], "cannot read /no/such/file: No such file or directory"),
        (["train", "digits", "--threads", "100000"], "threads: expected at least 1 and at most 1024, got 100000"),
        (["train", "digits", "--workers", "100000"], "workers: expected at least 0 and at most 256, got 100000"),
        (
            ["train", "digits", "--seed", str(2**70)],
            "seed: expected at least 0 and at most 9223372036854775807",
        ),
        (["train", "digits", "--seed", "-1"], "seed: expected at least 0 "),
        (["train", "digits", "--epochs", "1" + "0" * 6000], "epochs"),
        (["train", "digits", "--learning-rate", "nan"], "learning_rate: expected a finite number, got nan"),
        (["train", "arrows", "--data-seed", str(2**70)], "data_seed: expected at least 0 "),
        (["train", "graphs", "--dataset", "../MUTAG"], "dataset: expected a name of letters, digits"),
        (["generate", "x", "--seed", str(2**70)], "seed: expected at least 0 "),
        (["show", "graph", "--seed", "-1"], "seed: expected at least 0 "),
        (["eval", "nowhere"], "nowhere holds no run (no training.json)"),
        (["generate", "nowhere"], "nowhere holds no run (no training.json)"),
        (["show"], "command: expected one of plstm-torch show receptive-field"),
        (["show", "receptive-field", "--angle", "1.5"], "angle: expected above 0 and below 1, got (1.5,)"),
        (["show", "receptive-field", "--out", "field.doc"], "expected a name that ends in .png, .svg or .pdf"),
        (
            ["show", "receptive-field", "--out", "/no/such/folder/a.png"],
            "out: expected a folder that exists, got /no/such/folder",
        ),
    ],
)
def test_bad_input_is_one_line_and_code_two(words, message, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(*words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "package", "extra", "words"),
    [
        ("sklearn.datasets", "scikit-learn", "plstm-testing[datasets]", ["train", "digits"]),
        ("PIL.Image", "pillow", "plstm-testing[datasets]", ["train", "arrows"]),
        ("matplotlib", "matplotlib", "plstm-torch[train]", ["train", "digits"]),
        ("rich", "rich", "plstm-torch[train]", ["train", "digits"]),
        ("filelock", "filelock", "plstm-torch[train]", ["train", "digits"]),
        ("lightning_fabric", "lightning-fabric", "plstm-torch[train]", ["train", "digits"]),
        ("matplotlib.figure", "matplotlib", "plstm-torch[train]", ["show", "receptive-field"]),
    ],
)
def test_a_missing_package_is_one_line(module, package, extra, words, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    assert f'{package} is not installed; run: pip install "{extra}"' in refused(*words)
    assert list(tmp_path.iterdir()) == []


def test_digits_from_training_to_evaluation(run, refused, tmp_path):
    folder = tmp_path / "digits"
    code, out, _ = run("train", "digits", "--epochs", "1", *DIGITS, "--out", folder)
    assert code == 0
    assert "epoch   1/1" in out
    assert f"run folder: {folder}" in out
    assert {path.name for path in folder.iterdir()} == {
        ".lock",
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
    assert "epochs: expected 1, since a resumed run keeps its settings, got 7" in message
    assert "dim: expected 8, since a resumed run keeps its settings, got 16" in refused(
        "train", "digits", *resume, "--dim", "16"
    )
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
    assert "test_sizes: expected multiples of patch_size=8, got (16, 20)" in refused("eval", folder, "--size", "20")
    assert run("train", "arrows", *ARROWS, "--steps", "3", "--out", folder, "--resume")[0] == 0


def test_a_resumed_text_may_move_but_not_change(refused, run, text_run, text_file, tmp_path):
    moved = tmp_path / "moved.txt"
    moved.write_bytes(text_file.read_bytes())
    resume = ("--resume", "--out", text_run)
    assert run("train", "text", moved, *TEXT, *resume)[0] == 0
    moved.write_bytes(text_file.read_bytes()[::-1])
    assert "is not the text that this run began with" in refused("train", "text", moved, *TEXT, *resume)


def test_a_text_is_trained_measured_and_continued(run, refused, text_run, text_file, tmp_path):
    summary = json.loads((text_run / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < summary["test_bits_per_byte"] < 8
    assert len((text_run / "sample.txt").read_bytes()) >= 64 + 30
    code, out, _ = run("eval", text_run, "--json", "--file", text_file)
    assert code == 0
    assert json.loads(out)["test_bits_per_byte"] == pytest.approx(summary["test_bits_per_byte"], rel=1e-6)
    other = tmp_path / "other.txt"
    other.write_bytes(bytes(range(256)) * 4)
    code, out, _ = run("eval", text_run, "--json", "--file", other)
    assert json.loads(out)["test_bits_per_byte"] > summary["test_bits_per_byte"]
    message = refused("eval", text_run)
    assert f"--file: expected the data to measure on (the run names {[str(text_file)]!r}, which" in message


def test_generation_is_reproducible_and_continues_the_prompt(text_run, refused):
    command = [sys.executable, "-m", "plstm_torch", "generate", text_run, "--prompt", "to be", "--length", "9"]
    first, again = (subprocess.run([*command, "--seed", "3"], capture_output=True, check=True).stdout for _ in range(2))
    assert first == again
    assert first.startswith(b"to be")
    assert len(first) == len("to be") + 9 + 1
    assert "temperature: expected at least 0, got -1.0" in refused("generate", text_run, "--temperature", "-1")
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
    assert "layers: expected at least 2 and at most 1024, got 1" in refused(
        "show", "graph", "--layers", "1", "--out", path
    )
