"""Weights folders: what is written and read, whatever ends the save, and what strangers' files can do."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import plstm_config as pc
from plstm_config import folder as folders
from plstm_config.folder import CONFIG_FILE, DIGEST, WEIGHTS_FILE, read_folder, read_weights, write_folder
from plstm_config.weights import array_infos, check_weights

CONFIG = pc.SourceLayerConfig(input_dim=8, num_heads=2, weight=True, dtype="float32")
OTHER = pc.SourceLayerConfig(input_dim=4, num_heads=4, weight=True, dtype="float32")
WRITER = {"package": "plstm-test", "version": "9"}


def arrays_of(config: pc.Config, value: float = 1.0, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    return {name: np.full(p.shape, value, dtype) for name, p in pc.parameter_tree(config).items()}


def names_in(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    write_folder(tmp_path / "saved", CONFIG, arrays_of(CONFIG), **WRITER)
    return tmp_path / "saved"


def describe(path: Path, **changes: Any) -> None:
    description = json.loads((path / CONFIG_FILE).read_text())
    (path / CONFIG_FILE).write_text(json.dumps(description | changes))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_what_is_written_is_read(tmp_path: Path, dtype: Any) -> None:
    arrays = {name: np.asfortranarray(array) for name, array in arrays_of(CONFIG, 0.1, dtype).items()}
    arrays["bias"] = np.random.default_rng(0).normal(size=(2, 1, 1, 1, 5))[..., ::5].reshape(2, 1, 1, 1).astype(dtype)
    write_folder(tmp_path / "a" / "b", CONFIG, arrays, **WRITER)
    config, found = read_folder(tmp_path / "a" / "b")
    assert config == CONFIG
    assert found.keys() == arrays.keys()
    for name, array in found.items():
        assert array.dtype == dtype
        assert array.tobytes() == arrays[name].tobytes()
        assert array.flags.writeable


def test_the_files_are_plain(saved: Path) -> None:
    description = json.loads((saved / CONFIG_FILE).read_text())
    assert list(description) == ["schema_version", "model_type", "package", "package_version", "config", DIGEST]
    assert (description["package"], description["package_version"]) == ("plstm-test", "9")
    assert load_file(saved / WEIGHTS_FILE).keys() == {"bias", "weight"}
    assert names_in(saved) == [CONFIG_FILE, WEIGHTS_FILE]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_folder(tmp_path / "saved", CONFIG, arrays_of(CONFIG), **WRITER)
    finally:
        os.umask(before)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        assert (tmp_path / "saved" / name).stat().st_mode & 0o777 == 0o666 & ~mask


def test_folders_of_earlier_versions_have_no_digest(saved: Path) -> None:
    description = json.loads((saved / CONFIG_FILE).read_text())
    del description[DIGEST]
    (saved / CONFIG_FILE).write_text(json.dumps(description))
    save_file(arrays_of(CONFIG, 5.0), saved / WEIGHTS_FILE)
    assert read_folder(saved)[1]["bias"].flat[0] == 5.0


def test_weights_of_another_save_are_refused(saved: Path) -> None:
    save_file(arrays_of(CONFIG, 5.0), saved / WEIGHTS_FILE)
    message = r"model\.safetensors: expected the file that .*config\.json was saved with, got another one"
    with pytest.raises(ValueError, match=message):
        read_folder(saved)
    with pytest.raises(ValueError, match=message):
        read_weights(saved, lambda infos, source: None)


class Killed(BaseException):
    """Ends a save where a signal could."""


@pytest.mark.parametrize("config", [CONFIG, OTHER], ids=["same shapes", "other shapes"])
@pytest.mark.parametrize("digest", [True, False], ids=["digest", "no digest"])
@pytest.mark.parametrize("step", [0, 1])
def test_a_save_killed_between_its_files(
    saved: Path, monkeypatch: pytest.MonkeyPatch, step: int, digest: bool, config: pc.Config
) -> None:
    if not digest:
        test_folders_of_earlier_versions_have_no_digest(saved)
    before = read_folder(saved)
    replace = os.replace
    done: list[object] = []

    def replace_or_die(*paths: Any) -> None:
        if len(done) == step:
            raise Killed
        done.append(paths)
        replace(*paths)

    monkeypatch.setattr(os, "replace", replace_or_die)
    with pytest.raises(Killed):
        write_folder(saved, config, arrays_of(config, 2.0), **WRITER)
    monkeypatch.undo()
    assert len(names_in(saved)) == 3, "nothing may tidy up after a kill"
    for _ in range(2):
        found, arrays = read_folder(saved)
        assert found == (config if step else before[0])
        assert arrays["bias"].flat[0] == (2.0 if step else before[1]["bias"].flat[0])
        assert read_weights(saved, lambda infos, source: None)["bias"].flat[0] == arrays["bias"].flat[0]
        folders._clean_up(saved)
        assert names_in(saved) == [CONFIG_FILE, WEIGHTS_FILE]


SAVER = """
import sys
import numpy as np
import plstm_config as pc
from plstm_config.folder import write_folder
print("ready", flush=True)
for k in range(10**9):
    config = pc.LinearConfig(input_dim=64, output_dim=1 + k % 3 * 100, dtype="float32")
    arrays = {name: np.full(p.shape, k % 3, np.float32) for name, p in pc.parameter_tree(config).items()}
    write_folder(sys.argv[1], config, arrays, package="p", version="1")
"""


def test_saves_killed_at_any_moment_leave_a_whole_folder(tmp_path: Path) -> None:
    rng, path = random.Random(0), tmp_path / "saved"
    (tmp_path / "saver.py").write_text(SAVER)
    for _ in range(12):
        command = [sys.executable, str(tmp_path / "saver.py"), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0.0, 0.05) + (not (path / CONFIG_FILE).exists()) * 0.5)
            process.send_signal(signal.SIGKILL)
        config, arrays = read_folder(path)
        value = (config.output_dim - 1) // 100  # type: ignore[attr-defined]
        assert all((array == value).all() for array in arrays.values())
    write_folder(path, CONFIG, arrays_of(CONFIG), **WRITER)
    assert names_in(path) == [CONFIG_FILE, WEIGHTS_FILE]


def test_readers_and_writers_do_not_meet(tmp_path: Path) -> None:
    (tmp_path / "saver.py").write_text(SAVER)
    path = tmp_path / "saved"
    write_folder(path, CONFIG, arrays_of(CONFIG), **WRITER)
    with subprocess.Popen([sys.executable, str(tmp_path / "saver.py"), str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(50):
            read_folder(path)
        process.kill()


FULL = """
import sys
import numpy as np
import plstm_config as pc
from plstm_config.folder import write_folder
config = pc.LinearConfig(input_dim=64, output_dim=1000, dtype="float32")
arrays = {name: np.zeros(p.shape, np.float32) for name, p in pc.parameter_tree(config).items()}
try:
    write_folder(sys.argv[1], config, arrays, package="p", version="1")
except OSError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("limit", [0, 1000, 100_000])
def test_a_full_disk(saved: Path, limit: int, exists: bool) -> None:
    if not exists:
        shutil.rmtree(saved)

    def no_room() -> None:  # as a disk without room, for this process only
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-B", "-c", FULL, str(saved)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=no_room)
    assert f"{saved}: could not be written and stays as it was: " in result.stdout
    assert result.stdout.count("\n") == 1
    assert saved.exists() == exists
    if exists:
        assert names_in(saved) == [CONFIG_FILE, WEIGHTS_FILE]
        assert read_folder(saved)[0] == CONFIG


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_folder_in_a_files_place(saved: Path, name: str) -> None:
    (saved / name).unlink()
    (saved / name).mkdir()
    with pytest.raises(IsADirectoryError, match=name):
        write_folder(saved, CONFIG, arrays_of(CONFIG), **WRITER)
    assert names_in(saved) == [CONFIG_FILE, WEIGHTS_FILE]


def test_only_what_fits_is_written(saved: Path) -> None:
    with pytest.raises(
        ValueError, match=r"arrays: expected the weights of SourceLayer, got others: weight: expected shape"
    ):
        write_folder(saved, CONFIG, {**arrays_of(CONFIG), "weight": np.zeros(3)}, **WRITER)
    with pytest.raises(ValueError, match=r"bias: expected dtype float64 or .*, got int64"):
        write_folder(saved, CONFIG, arrays_of(CONFIG, 1, np.int64), **WRITER)
    with pytest.raises(TypeError, match=r"config: expected a config"):
        write_folder(saved, {}, {}, **WRITER)  # type: ignore[arg-type]
    assert read_folder(saved)[1]["bias"].flat[0] == 1.0


class Stranger(pc.RMSNormConfig):
    """A class that no backend knows."""


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (pc.LinearConfig(input_dim=2, output_dim=2, bias_init=pc.ConstantInitConfig(value=-np.inf)), "finite number"),
        (pc.LinearConfig(input_dim=2, output_dim=2, bias_init=pc.ConstantInitConfig(value=np.nan)), "finite number"),
        (Stranger(input_dim=2), "got one of another class"),
    ],
)
def test_only_what_can_be_read_is_written(tmp_path: Path, config: pc.Config, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^config: expected .*{message}"):
        write_folder(tmp_path / "saved", config, arrays_of(config), **WRITER)
    for name in ("config.json", "config.yaml"):
        with pytest.raises(ValueError, match=rf"^config: expected .*{message}"):
            pc.save(config, tmp_path / name)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("version", [True, 1.0, "1", None, 2, [1], {}])
def test_schema_versions(saved: Path, version: Any) -> None:
    describe(saved, schema_version=version)
    with pytest.raises(ValueError, match=r"config\.json: schema_version: expected 1, got .*, written by 'plstm-test'"):
        read_folder(saved)


@pytest.mark.parametrize("digest", [3, "", "x", ["a"], {}])
def test_digests_that_are_none(saved: Path, digest: Any) -> None:
    describe(saved, **{DIGEST: digest})
    with pytest.raises(ValueError, match=rf"config\.json: {DIGEST}: expected 64 hexadecimal digits"):
        read_folder(saved)


HUGE = {
    "blocks": (pc.BlockStackConfig(input_dim=8, num_blocks=1), {"num_blocks": 10**7}),
    "countless blocks": (pc.BlockStackConfig(input_dim=8, num_blocks=1), {"num_blocks": 2**61}),
    "tokens": (pc.TokenEmbeddingConfig(vocab_size=3, embedding_dim=2), {"vocab_size": 10**9}),
    "width": (pc.LinearConfig(input_dim=3, output_dim=2), {"output_dim": 10**12}),
    "positions": (pc.PosEmbed2DConfig(seqlens=(2, 2), dim=3), {"seqlens": [10**6, 10**6]}),
}


@pytest.mark.parametrize("name", HUGE)
def test_a_config_that_asks_for_more_than_there_is(tmp_path: Path, name: str) -> None:
    config, changes = HUGE[name]
    write_folder(tmp_path, config, arrays_of(config), **WRITER)
    describe(tmp_path, config=pc.to_dict(config) | changes)
    begin = time.process_time()
    with pytest.raises(ValueError, match=r"model\.safetensors: expected the weights of .*(missing|expected shape)"):
        read_folder(tmp_path)
    assert time.process_time() - begin < 1.0


def test_positions_grow_up_to_a_limit(tmp_path: Path) -> None:
    config = pc.PosEmbed2DConfig(seqlens=(2, 2), dim=3)
    write_folder(tmp_path, config, arrays_of(config), **WRITER)
    describe(tmp_path, config=pc.to_dict(config) | {"seqlens": [16, 16]})
    assert read_folder(tmp_path)[1]["embed"].shape == (1, 2, 2, 3)
    describe(tmp_path, config=pc.to_dict(config) | {"seqlens": [16, 17]})
    with pytest.raises(ValueError, match=r"embed: expected shape \(1, 16, 17, 3\), got \(1, 2, 2, 3\)"):
        read_folder(tmp_path)
    check_weights(pc.PosEmbed2DConfig(seqlens=(99, 99), dim=3), array_infos(arrays_of(config)))


def test_infinite_weights_are_read_as_they_are(tmp_path: Path) -> None:
    arrays = arrays_of(CONFIG, np.nan) | {"bias": np.full((2, 1, 1, 1), -np.inf, np.float32)}
    write_folder(tmp_path, CONFIG, arrays, **WRITER)
    found = read_folder(tmp_path)[1]
    assert np.isnan(found["weight"]).all()
    assert np.isneginf(found["bias"]).all()


def write_raw(path: Path, tensors: dict[str, tuple[str, list[int], bytes]]) -> None:
    """A safetensors file with types that numpy does not have."""
    header, data = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    (path / WEIGHTS_FILE).write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"])
def test_types_that_no_weights_have(saved: Path, dtype: str) -> None:
    shapes = {name: list(p.shape) for name, p in pc.parameter_tree(CONFIG).items()}
    write_raw(saved, {name: (dtype, shape, bytes(int(np.prod(shape)))) for name, shape in shapes.items()})
    with pytest.raises(ValueError, match=rf"bias: expected dtype float64 or .*, got {dtype}"):
        read_folder(saved)


def test_names_with_escape_sequences_do_no_harm(saved: Path) -> None:
    save_file({**arrays_of(CONFIG), "\x1b[31mred\n": np.zeros(1)}, saved / WEIGHTS_FILE)
    with pytest.raises(ValueError, match=r"unexpected '\\x1b\[31mred\\n'"):
        read_folder(saved)
    describe(saved, config=pc.to_dict(CONFIG) | {"\x1b[31mred\n": 1})
    with pytest.raises(ValueError, match=r"expected some of the fields .*, got '\\x1b\[31mred\\n'"):
        read_folder(saved)


def test_many_problems_make_a_short_message(saved: Path) -> None:
    save_file({f"{index:0100d}": np.zeros(1) for index in range(5000)}, saved / WEIGHTS_FILE)
    with pytest.raises(ValueError, match="and 4992 more") as caught:
        read_folder(saved)
    assert len(str(caught.value)) < 2000
