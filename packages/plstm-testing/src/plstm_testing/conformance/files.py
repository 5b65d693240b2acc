"""Folders with a config and weights: what a backend writes the suite reads, and the other way round."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from plstm_config import from_dict, parameter_tree, to_dict
from plstm_config.base import Config

from .adapter import Adapter, Array
from .modules import GROUPS, call, case_named, is_module

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
SCHEMA_VERSION = 1
DTYPE = "float32"


def write_folder(config: Config, parameters: Mapping[str, Array], folder: Path) -> None:
    """Write a folder of the common format with numpy alone.

    Args:
        config: the module's config.
        parameters: its parameters by name; they are stored in the dtypes that the config says.
        folder: where to write; made if need be.
    """
    from safetensors.numpy import save_file

    tree = parameter_tree(config)
    folder.mkdir(parents=True, exist_ok=True)
    dtypes = {name: tree[name].dtype if name in tree else DTYPE for name in parameters}
    save_file(
        {name: np.ascontiguousarray(array, dtypes[name]) for name, array in parameters.items()}, folder / WEIGHTS_FILE
    )
    description = {"schema_version": SCHEMA_VERSION, "package": "plstm-testing", "config": to_dict(config)}
    (folder / CONFIG_FILE).write_text(json.dumps(description), encoding="utf-8")


def read_folder(folder: Path) -> tuple[Config, dict[str, Array]]:
    """Read a folder of the common format.

    Args:
        folder: the folder.

    Returns:
        Config, and parameters by name in float64.

    Raises:
        ValueError: if a file is damaged or does not fit the other; the message names what.
        FileNotFoundError: if a file is missing.
    """
    config, arrays = _read_config(folder / CONFIG_FILE), _read_arrays(folder / WEIGHTS_FILE)
    tree, problems = parameter_tree(config), []
    problems += [f"missing {name!r}" for name in sorted(tree.keys() - arrays.keys())]
    problems += [f"unexpected {name!r}" for name in sorted(arrays.keys() - tree.keys())]
    for name in tree.keys() & arrays.keys():
        if arrays[name].shape != tree[name].shape:
            problems.append(f"{name}: expected shape {tree[name].shape}, got {arrays[name].shape}")
    if problems:
        raise ValueError(f"{folder / WEIGHTS_FILE}: {'; '.join(problems)}")
    return config, {name: array.astype(np.float64) for name, array in arrays.items()}


def _read_config(path: Path) -> Any:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected JSON: {error}") from error
    version = description.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(f"{path}: expected schema_version {SCHEMA_VERSION}, got {version!r}")
    return from_dict(description["config"])


def _read_arrays(path: Path) -> dict[str, Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        found: dict[str, Array] = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a safetensors file: {error}") from error
    return found


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
        found, arrays = _read_config(folder / CONFIG_FILE), _read_arrays(folder / WEIGHTS_FILE)
        _compare(found, arrays, config, parameters, f"{name}: what was written")
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


@dataclass(frozen=True)
class Damage:
    """A fault in a folder.

    Attributes:
        spoil: brings it about, in a folder that is right.
        names: what the error has to name, one of each tuple.
        error: class of the error.
    """

    spoil: Callable[[Path], None]
    names: tuple[tuple[str, ...], ...]
    error: type[Exception] = ValueError


def check_damage(adapter: Adapter, damage: Damage) -> None:
    """A folder with a fault is refused by an error that names it."""
    config, parameters = _module(DAMAGED)
    with TemporaryDirectory() as place:
        folder = Path(place)
        write_folder(config, parameters, folder)
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
        from safetensors.numpy import save_file

        save_file(dict(change(_read_arrays(folder / WEIGHTS_FILE))), folder / WEIGHTS_FILE)

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
