"""Configs from and to dicts, JSON and YAML."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import compoconf
import yaml

from plstm_config import (
    blocks,
    convolution,
    gates,
    initializers,
    linear,
    models,
    norms,
    plstm_1d,
    plstm_2d,
    plstm_graph,
    pointwise,
    query_key_value,
    transition,
)
from plstm_config.base import Config

_MODULES = (
    initializers, norms, linear, gates, transition, query_key_value, convolution, pointwise,
    plstm_1d, plstm_2d, plstm_graph, blocks, models,
)  # fmt: skip
CONFIG_CLASSES: dict[str, type[Config]] = {
    str(cls.__dataclass_fields__["class_name"].default): cls
    for module in _MODULES
    for cls in vars(module).values()
    if isinstance(cls, type) and issubclass(cls, Config) and cls.__dataclass_fields__["class_name"].default
}


# Fields of earlier versions that had no effect, or only one value that worked: files that hold them are still read.
_RETIRED: dict[str, dict[str, tuple[Any, ...] | None]] = {
    "pLSTM1DLayer": {"levels": None},
    "pLSTM2DLayer": {"levels": None},
    "pLSTM2DLayerFused": {"levels": None},
    "Convolution1DLayer": {"pointwise": (True,), "causal": (True,)},
    "Convolution2DLayer": {"pointwise": (True,)},
    "DropPath": {"dtype": None, "param_dtype": None},
}
_DEEPEST = 64  # levels of nesting; our deepest preset has a dozen


class _YamlLoader(yaml.SafeLoader):
    """Reads 1e-5 as a number, as YAML 1.2 and JSON do; the safe loader alone reads a text."""


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def config_class(class_name: str) -> type[Config]:
    """Look up a config class.

    Args:
        class_name: its `class_name`, such as "pLSTMVisionModel".

    Returns:
        The class.

    Raises:
        ValueError: if there is none of that name; the message lists all.
    """
    if not isinstance(class_name, str) or class_name not in CONFIG_CLASSES:
        raise ValueError(f"class_name={class_name!r}: expected one of {', '.join(sorted(CONFIG_CLASSES))}")
    return CONFIG_CLASSES[class_name]


def from_dict(mapping: Mapping[str, Any]) -> Config:
    """Make a config from plain data.

    Args:
        mapping: fields by name; `class_name` says which config it is, at the top and wherever a field has a choice.

    Returns:
        The complete config.

    Raises:
        TypeError: if `mapping` is no mapping, or a value has a wrong type.
        ValueError: if a name is unknown, or values do not fit each other.
    """
    if not isinstance(mapping, Mapping):
        raise TypeError(f"mapping: expected a mapping with class_name, got {type(mapping).__name__}")
    if "class_name" not in mapping:
        raise ValueError(f"mapping: expected a class_name, got the keys {sorted(mapping)}")
    cls = config_class(mapping["class_name"])
    mapping = _current(mapping, _DEEPEST)
    check_names(cls, mapping)
    try:
        return compoconf.parse_config(cls, mapping, strict=True, strict_types=True)
    except (KeyError, AttributeError) as error:
        raise ValueError(f"{cls.__name__}: {error.args[0] if error.args else error}") from error


def _current(value: Any, depth: int) -> Any:
    """Plain data without what earlier versions wrote and nothing reads any more."""
    if depth == 0:
        raise ValueError(f"mapping: expected a config, got one that nests deeper than {_DEEPEST} levels")
    if isinstance(value, list | tuple):
        return [_current(item, depth - 1) for item in value]
    if not isinstance(value, Mapping):
        return value
    class_name = value.get("class_name")
    retired = _RETIRED.get(class_name, {}) if isinstance(class_name, str) else {}
    for name in retired.keys() & value.keys():
        allowed = retired[name]
        if allowed is not None and value[name] not in allowed:
            raise ValueError(f"{class_name}.{name}={value[name]!r}: expected {allowed[0]!r}, the only kind there is")
    return {name: _current(item, depth - 1) for name, item in value.items() if name not in retired}


def check_names(cls: type[Config], mapping: Mapping[str, Any]) -> None:
    """Raise a ValueError if a mapping has names that are no fields of the config class."""
    known = {field.name for field in fields(cls)}
    unknown = sorted(set(mapping) - known)
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}")


def to_dict(config: Config) -> dict[str, Any]:
    """Turn a config into plain data that [from_dict][] reads back unchanged.

    Raises:
        TypeError: if `config` is no config.
    """
    if not isinstance(config, Config):
        raise TypeError(f"config: expected a config, got {type(config).__name__}")
    return _plain(config)


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def load(path: str | Path) -> Config:
    """Read a config from a JSON or YAML file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the ending is not .json, .yaml or .yml, the text does not parse, or the config is wrong.
    """
    return from_dict(read_mapping(path))


def read_mapping(path: str | Path) -> Any:
    """Read plain data from a JSON or YAML file; see [load][]."""
    path = Path(path)
    kind = _kind(path)
    text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text) if kind == "json" else yaml.load(text, Loader=_YamlLoader)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: expected {kind.upper()}, got {error}") from error


def save(config: Config, path: str | Path) -> None:
    """Write a config to a JSON or YAML file, by the ending of its name.

    Raises:
        ValueError: if the ending is not .json, .yaml or .yml.
    """
    path = Path(path)
    data = to_dict(config)
    text = json.dumps(data, indent=2) + "\n" if _kind(path) == "json" else yaml.safe_dump(data, sort_keys=False)
    path.write_text(text, encoding="utf-8")


def _kind(path: Path) -> str:
    kinds = {".json": "json", ".yaml": "yaml", ".yml": "yaml"}
    if path.suffix not in kinds:
        raise ValueError(f"path={str(path)!r}: expected a name that ends in .json, .yaml or .yml")
    return kinds[path.suffix]


def json_schema(config: str | type[Config]) -> dict[str, Any]:
    """JSON Schema of a config, for editors.

    Args:
        config: a config class, or its `class_name`.

    Returns:
        The schema (draft 2020-12).
    """
    cls = config_class(config) if isinstance(config, str) else config
    return compoconf.to_json_schema(cls, title=cls.__name__)
