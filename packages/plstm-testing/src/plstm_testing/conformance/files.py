"""Folders with a config and weights: what a backend writes the suite reads, and the other way round."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from plstm_config import from_dict, to_dict
from plstm_config.base import Config

from .. import golden
from ..tolerances import assert_close
from .adapter import Adapter, Array, ModuleCall
from .modules import GROUPS, call, case_named, is_module

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
SCHEMA_VERSION = 1
DTYPE = "float32"


def write_folder(config: Config, parameters: Mapping[str, Array], folder: Path) -> None:
    """Write a folder of the common format, as plainly as the format allows.

    Args:
        config: the module's config.
        parameters: its parameters by name; they are stored in float32.
        folder: where to write.
    """
    save_file({name: np.ascontiguousarray(array, DTYPE) for name, array in parameters.items()}, folder / WEIGHTS_FILE)
    description = {"schema_version": SCHEMA_VERSION, "config": to_dict(config)}
    (folder / CONFIG_FILE).write_text(json.dumps(description), encoding="utf-8")


def read_config(folder: Path) -> Any:
    """The config of a folder of the common format, read as plainly as the format allows."""
    description = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    if description["schema_version"] != SCHEMA_VERSION:
        raise AssertionError(f"schema_version: expected {SCHEMA_VERSION}, got {description['schema_version']}")
    return from_dict(description["config"])


@cache
def examples() -> Mapping[str, str]:
    """One case for each class of modules: the group by the name of the case."""
    found: dict[type, tuple[str, str]] = {}
    for group, cases in GROUPS.items():
        for case in cases():
            found.setdefault(type(case.config), (case.name, group))
    return dict(found.values())


def check_written(adapter: Adapter, name: str) -> None:
    """What a backend writes has the names, shapes, dtypes and numbers of the table, and the config."""
    config, parameters = _module(name)
    with TemporaryDirectory() as place:
        folder = Path(place) / "new" / "folder"
        adapter.save(config, parameters, folder)
        arrays = load_file(folder / WEIGHTS_FILE)
        _compare(read_config(folder), arrays, config, parameters, f"{name}: what was written")
        wrong = [f"{key} in {array.dtype}" for key, array in arrays.items() if array.dtype != DTYPE]
        if wrong:
            raise AssertionError(f"{name}: expected {DTYPE}, the config's param_dtype, got {', '.join(wrong)}")
        _compare(*adapter.load(folder), config, parameters, f"{name}: what was read again")


def check_read(adapter: Adapter, name: str) -> None:
    """What somebody else wrote is read."""
    config, parameters = _module(name)
    with TemporaryDirectory() as place:
        write_folder(config, parameters, Path(place))
        _compare(*adapter.load(Path(place)), config, parameters, f"{name}: what was read")


def check_earlier(adapter: Adapter, earlier: golden.EarlierFolder) -> None:
    """A folder of an earlier version is read, gives the outputs of then, and is written again with the same weights."""
    config, parameters = adapter.load(earlier.path)
    label = f"folder {earlier.name}"
    asked = ModuleCall(config=config, parameters=parameters, inputs=earlier.inputs, dtype=DTYPE)
    output = adapter.run_module(asked).output
    assert_close(output, earlier.output, DTYPE, label=label)
    with TemporaryDirectory() as place:
        adapter.save(config, parameters, Path(place))
        before, after = load_file(earlier.path / WEIGHTS_FILE), load_file(Path(place) / WEIGHTS_FILE)
    _compare(config, after, config, before, f"{label}: what was written again")


@dataclass(frozen=True)
class Damage:
    """A fault in a folder.

    Attributes:
        spoil: brings it about, in a folder that is right.
        names: what the error has to name, one of each tuple.
        error: class of the error.
        saved: whether the backend wrote the folder; otherwise the suite did.
    """

    spoil: Callable[[Path], None]
    names: tuple[tuple[str, ...], ...]
    error: type[Exception] = ValueError
    saved: bool = False


def check_damage(adapter: Adapter, damage: Damage) -> None:
    """A folder with a fault is refused by an error that names it."""
    config, parameters = _module(DAMAGED)
    with TemporaryDirectory() as place:
        folder = Path(place)
        (adapter.save if damage.saved else write_folder)(config, parameters, folder)
        damage.spoil(folder)
        try:
            adapter.load(folder)
        except damage.error as error:
            text = str(error)
        else:
            raise AssertionError(f"expected {damage.error.__name__}, the folder was read")
    for options in damage.names:
        if not any(option in text for option in options):
            raise AssertionError(f"expected an error that names {' or '.join(options)}, got: {text}")


def _arrays(change: Callable[[dict[str, Array]], Mapping[str, Array]]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        save_file(dict(change(load_file(folder / WEIGHTS_FILE))), folder / WEIGHTS_FILE)

    return spoil


def _description(**changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        description = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")) | changes
        kept = {key: value for key, value in description.items() if value is not None}
        (folder / CONFIG_FILE).write_text(json.dumps(kept), encoding="utf-8")

    return spoil


def _truncate(file: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: len(content) // 2])

    return spoil


def _flip_last_byte(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS_FILE).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(content)


DAMAGED = "language_plain"
_HEAD = "lm_head.weight"
DAMAGES: Mapping[str, Damage] = {
    "missing_array": Damage(
        _arrays(lambda arrays: {name: array for name, array in arrays.items() if name != _HEAD}), ((_HEAD,),)
    ),
    "unexpected_array": Damage(_arrays(lambda arrays: arrays | {"extra.weight": np.ones(3)}), (("extra.weight",),)),
    "wrong_shape": Damage(
        _arrays(lambda arrays: arrays | {_HEAD: np.ascontiguousarray(arrays[_HEAD].T)}),
        ((_HEAD,), ("(7, 8)", "[7, 8]"), ("(8, 7)", "[8, 7]")),
    ),
    "truncated_weights": Damage(_truncate(WEIGHTS_FILE), ((WEIGHTS_FILE,),)),
    "truncated_config": Damage(_truncate(CONFIG_FILE), ((CONFIG_FILE,),)),
    "flipped_bit": Damage(_flip_last_byte, ((WEIGHTS_FILE,),), saved=True),
    "later_schema": Damage(_description(schema_version=99), (("schema_version",), ("99",))),
    "no_schema": Damage(_description(schema_version=None), (("schema_version",),)),
    "unknown_class": Damage(_description(config={"class_name": "Perceptron"}), (("Perceptron",),)),
    "no_weights": Damage(lambda folder: (folder / WEIGHTS_FILE).unlink(), ((WEIGHTS_FILE,),), FileNotFoundError),
    "no_config": Damage(lambda folder: (folder / CONFIG_FILE).unlink(), ((CONFIG_FILE,),), FileNotFoundError),
}


def checks(adapter: Adapter) -> Iterator[tuple[str, Callable[[], None]]]:
    """The checks of files by name."""
    for name, group in examples().items():
        if is_module(adapter, case_named(group, name).config):
            yield f"{name}-written", partial(check_written, adapter, name)
            yield f"{name}-read", partial(check_read, adapter, name)
    for earlier in golden.earlier_folders():
        if is_module(adapter, read_config(earlier.path)):
            yield f"earlier-{earlier.name}", partial(check_earlier, adapter, earlier)
    if is_module(adapter, case_named("models", DAMAGED).config):
        for name, damage in DAMAGES.items():
            yield name, partial(check_damage, adapter, damage)


def _module(name: str) -> tuple[Config, Mapping[str, Array]]:
    asked = call(case_named(examples().get(name, "models"), name), DTYPE)
    return asked.config, asked.parameters


def _compare(
    config: Config, arrays: Mapping[str, Array], expected: Config, parameters: Mapping[str, Array], label: str
) -> None:
    if config != expected:
        raise AssertionError(f"{label}: expected the config {expected}, got {config}")
    if set(arrays) != set(parameters):
        raise AssertionError(f"{label}: expected {sorted(parameters)}, got {sorted(arrays)}")
    for name, array in parameters.items():
        if arrays[name].shape != array.shape or not np.array_equal(arrays[name], array):
            raise AssertionError(f"{label}: expected the same {name} {array.shape}, got others {arrays[name].shape}")
