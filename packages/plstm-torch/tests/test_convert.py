"""`plstm-torch convert`: folders of this version from other folders and from weights of the original project."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

import plstm_config
from plstm_testing import golden
from plstm_torch import build, from_pretrained, load_original, save_pretrained
from plstm_torch.cli import app

pytestmark = pytest.mark.filterwarnings("ignore::plstm_config.original.MigrationWarning")


@pytest.fixture
def run(capsys):
    def run(*words):
        with pytest.raises(SystemExit) as stopped:
            app([str(word) for word in words])
        captured = capsys.readouterr()
        assert captured.err.count("\n") <= 1
        return stopped.value.code, captured.out + captured.err

    return run


@pytest.fixture
def original(tmp_path):
    """Config and weights of a small model of the original project, and ours made of them."""
    names = [n for n in golden.names() if (case := golden.load(n)).is_original and case.kind.startswith("model")]
    case = golden.load(names[0])
    path = tmp_path / "original.json"
    path.write_text(json.dumps(case.config))
    state = {name: torch.from_numpy(value.copy()) for name, value in case.parameters.items()}
    return path, state, load_original(case.config, state)


@pytest.mark.parametrize("kind", ["pt", "ckpt", "safetensors"])
def test_weights_of_the_original_become_a_folder(run, original, tmp_path, kind):
    config, state, expected = original
    weights = tmp_path / f"weights.{kind}"
    if kind == "safetensors":
        save_file(state, weights)
    elif kind == "pt":
        torch.save(state, weights)
    else:
        torch.save({"epoch": 3, "state_dict": {f"net.{name}": value for name, value in state.items()}}, weights)
    words = ("convert", weights, tmp_path / "ours", "--config", config)
    code, said = run(*words, *(("--prefix", "net.") if kind == "ckpt" else ()))
    assert code == 0, said
    found = from_pretrained(tmp_path / "ours").state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.state_dict().items())
    code, said = run(*words)
    assert (code, "expected a folder without a model" in said) == (2, True)


def test_a_folder_is_written_again(run, tmp_path):
    layer = build(plstm_config.pLSTM1DLayerConfig(input_dim=8, num_heads=2))
    save_pretrained(layer, tmp_path / "old")
    description = json.loads((tmp_path / "old" / "config.json").read_text())
    for name in [name for name in description if name not in ("schema_version", "config")]:
        del description[name]  # as the first versions wrote it
    (tmp_path / "old" / "config.json").write_text(json.dumps(description))
    code, said = run("convert", tmp_path / "old", tmp_path / "new")
    assert (code, said.strip()) == (0, f"{tmp_path / 'new'}: pLSTM1DLayer with {len(layer.state_dict())} arrays")
    assert "weights_sha256" in json.loads((tmp_path / "new" / "config.json").read_text())
    assert all(torch.equal(from_pretrained(tmp_path / "new").state_dict()[n], v) for n, v in layer.state_dict().items())
    assert run("convert", tmp_path / "old", tmp_path / "new", "--overwrite")[0] == 0


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_strangers_checkpoint_runs_no_code(run, original, tmp_path):
    trap = tmp_path / "code ran"
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"state_dict": Evil(trap)}))
    torch.save({"state_dict": Evil(trap)}, tmp_path / "torch.pt")
    for name in ("evil.pt", "torch.pt"):
        code, said = run("convert", tmp_path / name, tmp_path / "ours", "--config", original[0])
        assert (code, "expected a checkpoint of tensors and plain values" in said) == (2, True)
    assert not trap.exists()
    assert not (tmp_path / "ours").exists()


def test_bad_requests_name_the_option(run, original, tmp_path):
    config, state, _ = original
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "w.pt")
    (tmp_path / "folder").mkdir()
    for words, message in (
        (("nowhere", "ours", "--config", config), "source: expected a folder or a file of weights, got nowhere"),
        ((tmp_path / "w.pt", "ours"), "config: expected the original's config beside its weights, got none"),
        ((tmp_path / "w.pt", "ours", "--config", "no.json"), "config: expected a file (.json or .yaml), got no.json"),
        ((tmp_path / "w.pt", "ours", "--config", config, "--entry", "ema"), "entry: expected an entry of"),
        ((tmp_path / "w.pt", "ours", "--config", config, "--entry", "epoch"), "entry: expected one that holds tensors"),
        ((tmp_path / "w.pt", "ours", "--config", config, "--prefix", "x."), "prefix: expected the beginning of some"),
        ((tmp_path / "folder", "ours"), "expected a folder with config.json and model.safetensors, got none"),
        ((tmp_path / "folder", "ours", "--config", config), "config: expected none beside a folder"),
    ):
        code, said = run("convert", *words)
        assert code == 2
        assert message in said
