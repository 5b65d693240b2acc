"""Configs from and to dicts, JSON and YAML."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

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
from plstm_config.base import Config, field_types
from plstm_config.parameters import join

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
    "Convolution1DLayer": {"pointwise": (True,)},
    "Convolution2DLayer": {"pointwise": (True,)},
    "DropPath": {"dtype": None, "param_dtype": None},
}
# Bounds of what is read, far above every preset (a dozen levels, some hundred values): what is damaged or made to harm
# ends in a message, not in a computation without end.
_DEEPEST = 64  # levels of nesting
_MOST = 20_000  # values
_LARGEST = 2**62  # sizes
_SHOWN = 8  # names in a message


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

    Examples:
        >>> import plstm_config
        >>> plstm_config.config_class("RMSNorm")
        <class 'plstm_config.norms.RMSNormConfig'>
    """
    if not isinstance(class_name, str) or class_name not in CONFIG_CLASSES:
        raise ValueError(f"class_name: expected one of {', '.join(sorted(CONFIG_CLASSES))}, got {class_name!r}")
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

    Examples:
        >>> import plstm_config
        >>> plstm_config.from_dict({"class_name": "RMSNorm", "input_dim": 8, "eps": 1e-6})
        RMSNormConfig(
            input_dim=8,
            eps=1e-06,
        )
    """
    if not isinstance(mapping, Mapping):
        raise TypeError(f"mapping: expected a mapping with class_name, got {type(mapping).__name__}")
    check_plain(mapping)
    mapping = _current(mapping)
    if "class_name" not in mapping:
        raise ValueError(f"mapping: expected a class_name, got the keys {sorted(mapping)[:_SHOWN]}")
    return _make(config_class(mapping["class_name"]), mapping, "")


def _make(cls: type[Config], mapping: Mapping[str, Any], path: str) -> Config:
    """A config of plain data that was looked at, its children first; errors name the way to them."""
    here = path or cls.__name__
    try:
        check_names(cls, mapping)
        _check_class_name(cls, mapping)
    except (TypeError, ValueError) as error:
        raise _named(error, path) from error
    hints = field_types(cls)  # type: ignore[arg-type]
    given = {
        name: _make(_option(hints[name], value, join(path, name)), value, join(path, name))
        if isinstance(value, Mapping)
        else value
        for name, value in mapping.items()
        if name in hints
    }
    try:
        return cls(**given)
    except ArithmeticError as error:
        raise ValueError(f"{here}: expected sizes that can be computed with, got {error}") from error
    except (TypeError, ValueError) as error:
        raise _named(error, path) from error


def _named(error: TypeError | ValueError, path: str) -> TypeError | ValueError:
    return type(error)(f"{path}: {error}") if path else error


def _check_class_name(cls: type[Config], mapping: Mapping[str, Any]) -> None:
    own = cls.__dataclass_fields__["class_name"].default
    given = mapping.get("class_name", own)
    if given != own:
        raise ValueError(f"class_name: expected {own!r}, got {given!r:.80}")


def _option(hint: Any, value: Mapping[str, Any], path: str) -> type[Config]:
    """The class of a child: what it says, or the only one that the field takes."""
    options = tuple(
        option for option in (get_args(hint) or (hint,)) if isinstance(option, type) and issubclass(option, Config)
    )
    names = ", ".join(sorted(str(option.__dataclass_fields__["class_name"].default) for option in options))
    if not options:
        raise TypeError(f"{path}: expected no mapping, got one with the keys {sorted(value)[:_SHOWN]}")
    if "class_name" not in value and len(options) == 1:
        return options[0]
    said = value.get("class_name")
    found = CONFIG_CLASSES.get(said) if isinstance(said, str) else None
    if found is None or not issubclass(found, options):
        raise ValueError(f"{path}.class_name: expected one of {names}, got {said!r:.80}")
    return found


def check_plain(value: Any) -> None:
    """Look at all of a tree of plain data before anything is made of it.

    Args:
        value: what a file held.

    Raises:
        ValueError: if it nests too deeply, has too many values (aliases of YAML make many out of few), names that are
            no texts, or numbers that are infinite or larger than any size.
    """
    _check_plain(value, "", iter(range(_MOST)))


def _check_plain(value: Any, path: str, budget: Iterator[int]) -> None:
    if next(budget, None) is None:
        raise ValueError(f"mapping: expected a config, got one with more than {_MOST} values")
    if path.count(".") >= _DEEPEST:
        raise ValueError(f"mapping: expected a config, got one that nests deeper than {_DEEPEST} levels")
    if isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str):
                raise ValueError(f"{path.lstrip('.') or 'mapping'}: expected names of fields, got {name!r:.80}")
            _check_plain(item, f"{path}.{name}", budget)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_plain(item, f"{path}.{index}", budget)
    else:
        _check_number(value, path)


def _check_number(value: Any, path: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path.lstrip('.')!r:.200}: expected a finite number, got {value}")
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise ValueError(f"{path.lstrip('.')!r:.200}: expected a number up to {_LARGEST}, got a larger one")


def _current(value: Any) -> Any:
    """Plain data without what earlier versions wrote and nothing reads any more."""
    if isinstance(value, list | tuple):
        return [_current(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    retired = _retired(value)
    return {name: _current(item) for name, item in value.items() if name not in retired}


def _retired(mapping: Mapping[str, Any]) -> set[str]:
    """The names in a mapping that are no fields any more."""
    class_name = mapping.get("class_name")
    retired = _RETIRED.get(class_name, {}) if isinstance(class_name, str) else {}
    for name in retired.keys() & mapping.keys():
        allowed, value = retired[name], mapping[name]
        if allowed is not None and value not in allowed:
            raise ValueError(f"{class_name}.{name}: expected {allowed[0]!r}, the only kind there is, got {value!r:.80}")
    return set(retired)


def check_names(cls: type[Config], mapping: Mapping[str, Any]) -> None:
    """Raise a ValueError if a mapping has names that are no fields of the config class."""
    known = {field.name for field in fields(cls)}
    unknown = sorted(set(mapping) - known)
    if unknown:
        shown = ", ".join(map(repr, unknown[:_SHOWN]))
        raise ValueError(f"{cls.__name__}: expected some of the fields {', '.join(sorted(known))}, got {shown}")


def to_dict(config: Config) -> dict[str, Any]:
    """Turn a config into plain data that `from_dict` reads back unchanged.

    Raises:
        TypeError: if `config` is no config.

    Examples:
        >>> import plstm_config
        >>> data = plstm_config.to_dict(plstm_config.RMSNormConfig(input_dim=8))
        >>> data["class_name"], data["input_dim"], plstm_config.from_dict(data).eps
        ('RMSNorm', 8, 1e-05)
    """
    if not isinstance(config, Config):
        raise TypeError(f"config: expected a config, got {type(config).__name__}")
    return _plain(config)


def to_readable(config: Config) -> dict[str, Any]:
    """Turn a config into plain data for a file, after a look at whether it can be read again.

    Raises:
        TypeError: if `config` is no config.
        ValueError: if it cannot, because a number is infinite or the class is one of others.
    """
    data = to_dict(config)
    try:
        same = from_dict(data) == config
    except (TypeError, ValueError) as error:
        raise ValueError(f"config: expected one that can be read again, got one that cannot: {error}") from error
    if not same:
        raise ValueError(f"config: expected a {type(config).__name__} of plstm_config, got one of another class")
    return data


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
        ValueError: if the ending is not .json, .yaml or .yml, the text does not parse, or the config is wrong; the
            message names the file.

    Examples:
        >>> import tempfile
        >>> import plstm_config
        >>> path = tempfile.mkdtemp() + "/norm.yaml"
        >>> plstm_config.save(plstm_config.RMSNormConfig(input_dim=8), path)
        >>> plstm_config.load(path)
        RMSNormConfig(
            input_dim=8,
        )
    """
    mapping = read_mapping(path)
    try:
        return from_dict(mapping)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: expected a valid config, got one with {error}") from error


def read_mapping(path: str | Path) -> Any:
    """Read plain data from a JSON or YAML file; see `load`."""
    path = Path(path)
    return parse_json(path) if _kind(path) == "json" else _parse_yaml(path)


def parse_json(path: Path) -> Any:
    """Read plain data from a JSON file.

    Args:
        path: the file.

    Returns:
        What it holds.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no JSON (NaN and infinities are none), nests too deeply, or has numbers without end.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError(f"{path}: expected JSON, got a damaged file: it nests too deeply") from error
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, got a damaged file: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """The message of a library's error, which may quote a file: in one line, without what steers a terminal."""
    return repr(" ".join(str(error).split()))[1:-1]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"number: expected one of JSON, got {name}")


def _parse_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_YamlLoader)
    except RecursionError as error:
        raise ValueError(f"{path}: expected YAML, got a damaged file: it nests too deeply") from error
    except (ValueError, TypeError, AttributeError, ArithmeticError, yaml.YAMLError) as error:
        # the parser lets errors of Python through, such as of dates that do not exist
        raise ValueError(f"{path}: expected YAML, got a damaged file: {one_line(error)}") from error


def save(config: Config, path: str | Path) -> None:
    """Write a config to a JSON or YAML file, by the ending of its name.

    Raises:
        TypeError: if `config` is no config.
        ValueError: if the ending is not .json, .yaml or .yml, or the file could not be read again.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import plstm_config
        >>> path = Path(tempfile.mkdtemp(), "norm.yaml")
        >>> plstm_config.save(plstm_config.RMSNormConfig(input_dim=8, eps=1e-6), path)
        >>> path.read_text().splitlines()[0]
        'class_name: RMSNorm'
    """
    path = Path(path)
    data = to_readable(config)
    text = json.dumps(data, indent=2) + "\n" if _kind(path) == "json" else yaml.safe_dump(data, sort_keys=False)
    path.write_text(text, encoding="utf-8")


def _kind(path: Path) -> str:
    kinds = {".json": "json", ".yaml": "yaml", ".yml": "yaml"}
    if path.suffix not in kinds:
        raise ValueError(f"path: expected a name that ends in .json, .yaml or .yml, got {str(path)!r}")
    return kinds[path.suffix]


def json_schema(config: str | type[Config]) -> dict[str, Any]:
    """JSON Schema of a config, for editors.

    Args:
        config: a config class, or its `class_name`.

    Returns:
        The schema (draft 2020-12).

    Examples:
        >>> import plstm_config
        >>> sorted(plstm_config.json_schema("RMSNorm")["$defs"]["RMSNormConfig"]["properties"])[:3]
        ['bias', 'bias_init', 'class_name']
    """
    cls = config_class(config) if isinstance(config, str) else config
    return compoconf.to_json_schema(cls, title=cls.__name__)
