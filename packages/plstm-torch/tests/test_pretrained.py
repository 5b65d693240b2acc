"""Saving and loading: what is written, what comes back, and what a damaged folder does."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import plstm_config
from plstm_config import (
    PosEmbed2DConfig,
    PreUpProjectionBlockConfig,
    SourceLayerConfig,
    pLSTM1DLayerConfig,
    pLSTM2DLayerFusedConfig,
    pLSTMLMModelConfig,
    pLSTMVisionModelConfig,
)
from plstm_torch import build, from_pretrained, load_weights, save_pretrained

CONFIGS = {
    "vision": pLSTMVisionModelConfig(
        dim=8, num_heads=2, num_blocks=1, patch_size=4, resolution=(8, 8), output_shape=(3,), dtype="float32"
    ),
    "language": pLSTMLMModelConfig(vocab_size=7, embedding_dim=8, num_blocks=1, dtype="float32"),
    "language_tied": pLSTMLMModelConfig(
        vocab_size=7, embedding_dim=8, num_blocks=1, tie_weights=True, dtype="float32", param_dtype="bfloat16"
    ),
    "block": PreUpProjectionBlockConfig(input_dim=8, projection_round=8, dtype="float32"),
    "layer_1d": pLSTM1DLayerConfig(input_dim=8, num_heads=2, dtype="float32"),
    "layer_2d": pLSTM2DLayerFusedConfig(input_dim=8, num_heads=2, mode="D", dtype="float32"),
    "gate": SourceLayerConfig(input_dim=8, num_heads=2, weight=True, dtype="float32"),
}


@pytest.fixture
def module(randomize: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return randomize(build(CONFIGS["layer_1d"]))


@pytest.fixture
def folder(module: nn.Module, tmp_path: Path) -> Path:
    save_pretrained(module, tmp_path / "saved")
    return tmp_path / "saved"


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(module: nn.Module, state: dict[str, torch.Tensor]) -> None:
    assert module.state_dict().keys() == state.keys()
    for name, value in module.state_dict().items():
        assert value.dtype == state[name].dtype
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("name", CONFIGS)
def test_round_trip(name: str, tmp_path: Path, randomize: Callable[[nn.Module], nn.Module]) -> None:
    module = randomize(build(CONFIGS[name]))
    save_pretrained(module, tmp_path / "run" / "model")
    assert sorted(path.name for path in (tmp_path / "run" / "model").iterdir()) == ["config.json", "model.safetensors"]
    loaded = from_pretrained(tmp_path / "run" / "model")
    assert type(loaded) is type(module)
    assert loaded.config == module.config
    assert not loaded.training
    assert_same(loaded, snapshot(module))


def test_what_is_written(folder: Path, module: nn.Module) -> None:
    description = json.loads((folder / "config.json").read_text())
    assert description["schema_version"] == 1
    assert description["package"] == "plstm-torch"
    assert plstm_config.from_dict(description["config"]) == module.config
    stored = load_file(folder / "model.safetensors")
    assert stored.keys() == module.state_dict().keys()


def test_saving_again_replaces(folder: Path, module: nn.Module, randomize: Callable[[nn.Module], nn.Module]) -> None:
    (folder / "notes.txt").write_text("kept")
    save_pretrained(randomize(module), str(folder))
    assert_same(from_pretrained(str(folder)), snapshot(module))
    assert (folder / "notes.txt").read_text() == "kept"
    assert len(list(folder.iterdir())) == 3


def test_a_failed_save_leaves_the_old_files(folder: Path, module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    state = snapshot(module)

    def fail(*args: object, **kwargs: object) -> None:
        Path(str(args[1])).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("plstm_config.folder.save_file", fail)
    nn.init.zeros_(module.query.weight)
    with pytest.raises(OSError, match="disk full"):
        save_pretrained(module, folder)
    assert len(list(folder.iterdir())) == 2
    assert_same(from_pretrained(folder), state)


def test_views_into_one_buffer_are_stored_apart(tmp_path: Path, module: nn.Module) -> None:
    flat = torch.randn(module.query.weight.numel() + module.key.weight.numel())
    for part, piece in zip((module.query, module.key), flat.split(module.query.weight.numel()), strict=True):
        part.weight.data = piece.view(part.weight.shape)
    save_pretrained(module, tmp_path)
    assert_same(from_pretrained(tmp_path), snapshot(module))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch.compile's own
def test_wrapped_modules_are_saved_bare(tmp_path: Path, module: nn.Module) -> None:
    save_pretrained(torch.compile(module), tmp_path)
    assert_same(from_pretrained(tmp_path), snapshot(module))


def test_loading_does_not_disturb_the_random_state(folder: Path) -> None:
    before = torch.get_rng_state()
    from_pretrained(folder)
    assert torch.equal(before, torch.get_rng_state())


def test_device(folder: Path) -> None:
    assert {p.device.type for p in from_pretrained(folder, device="cpu").parameters()} == {"cpu"}


def test_dtypes_of_an_existing_module_stay(folder: Path, module: nn.Module) -> None:
    wide = build(CONFIGS["layer_1d"]).double()
    load_weights(wide, folder)
    assert torch.equal(wide.query.weight, module.query.weight.double())


def test_positional_embedding_of_another_resolution(tmp_path: Path) -> None:
    save_pretrained(build(PosEmbed2DConfig(seqlens=(4, 4), dim=3)), tmp_path)
    larger = build(PosEmbed2DConfig(seqlens=(8, 6), dim=3))
    load_weights(larger, tmp_path)
    assert larger.embed.shape == (1, 8, 6, 3)
    fixed = build(PosEmbed2DConfig(seqlens=(8, 6), dim=3, allow_interpolation=False))
    state = snapshot(fixed)
    with pytest.raises(ValueError, match=r"embed: expected shape \(1, 8, 6, 3\), got \(1, 4, 4, 3\)"):
        load_weights(fixed, tmp_path)
    assert_same(fixed, state)


def drop_a_tensor(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["query.weight"]
    save_file(state, folder / "model.safetensors")


def add_a_tensor(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({**state, "extra": torch.zeros(2)}, folder / "model.safetensors")


def reshape_a_tensor(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({**state, "query.bias": torch.zeros(3)}, folder / "model.safetensors")


def integers(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({**state, "query.bias": state["query.bias"].long()}, folder / "model.safetensors")


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def truncate_header(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:20])


def empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def text_as_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_text("these are no weights at all")


WEIGHT_DAMAGE = {
    drop_a_tensor: r"the weights of pLSTM1DLayer, got others: missing 'query\.weight'",
    add_a_tensor: "the weights of pLSTM1DLayer, got others: unexpected 'extra'",
    reshape_a_tensor: r"query\.bias: expected shape \(2, .*\), got \(3,\)",
    integers: r"query\.bias: expected dtype float64 or float32 or float16 or bfloat16, got I64",
    truncate: "damaged or truncated",
    truncate_header: "damaged or truncated",
    empty: "damaged or truncated",
    text_as_weights: "damaged or truncated",
}


@pytest.mark.parametrize("damage", WEIGHT_DAMAGE, ids=lambda damage: damage.__name__)
def test_damaged_weights(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder)
    other = build(CONFIGS["layer_1d"])
    state = snapshot(other)
    with pytest.raises(ValueError, match=r"model\.safetensors: .*" + WEIGHT_DAMAGE[damage]):
        load_weights(other, folder)
    assert_same(other, state)
    with pytest.raises(ValueError, match=r"model\.safetensors: .*" + WEIGHT_DAMAGE[damage]):
        from_pretrained(folder)


def change_config(folder: Path, **changes: object) -> None:
    description = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**description, **changes}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON, got a damaged file"),
        ("", "expected JSON, got a damaged file"),
        ("[1, 2]", "expected the keys 'schema_version' and 'config'"),
        ('{"config": {}}', "expected the keys 'schema_version' and 'config'"),
        ('{"schema_version": 1, "config": {"class_name": "NoSuchLayer"}}', "expected a valid config, got one with"),
        ('{"schema_version": 1, "config": 3}', "expected a valid config, got one with"),
    ],
)
def test_damaged_configs(folder: Path, text: str, message: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json: " + message):
        from_pretrained(folder)


def test_another_schema_version(folder: Path) -> None:
    change_config(folder, schema_version=2, package_version="9.9")
    with pytest.raises(ValueError, match=r"schema_version: expected 1, got 2, written by 'plstm-torch' '9\.9'"):
        from_pretrained(folder)


def test_a_config_of_another_module(folder: Path) -> None:
    change_config(folder, config=plstm_config.to_dict(CONFIGS["gate"]))
    with pytest.raises(ValueError, match=r"expected the weights of SourceLayer, got others: .*missing"):
        from_pretrained(folder)


def test_a_config_that_cannot_be_built(folder: Path) -> None:
    change_config(folder, config=plstm_config.to_dict(PosEmbed2DConfig(dim=3)))
    with pytest.raises(
        ValueError, match=r"config\.json: expected the config of a whole module, got one with seqlens, dim"
    ):
        from_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_files(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        from_pretrained(folder)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.*config\.json"):
        from_pretrained(tmp_path / "nowhere")


def test_a_file_in_the_folders_place(tmp_path: Path, module: nn.Module) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="folder: expected a folder or a new path, got the file"):
        save_pretrained(module, tmp_path / "file")


def test_modules_without_a_config_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"module: expected a module made by plstm_torch\.build, got Linear"):
        save_pretrained(nn.Linear(2, 2), tmp_path)
