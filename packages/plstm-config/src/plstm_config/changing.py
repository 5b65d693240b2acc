"""New configs from finished ones."""

from collections.abc import Mapping
from typing import Any

from plstm_config.base import Config, Draft, as_tuple, draft
from plstm_config.parameters import check_config


def change(config: Config, changes: Mapping[str, Any]) -> Config:
    """Make a config that differs in some fields, with everything that follows from them derived anew.

    Children that the config or its parents made follow, and so does every field of a child that had the value that its
    parent gives by default: a new `dtype` at the top reaches all that had the old one.

    Args:
        config: any config; it stays as it is.
        changes: new values by dotted name, such as ``{"dtype": "float32", "block_stack.block.norm.eps": 1e-6}``,
            applied in their order; they must fit together, not each by itself. None (or a negative size) lets the
            config derive a field.

    Returns:
        The new config.

    Raises:
        TypeError: if `config` is no config, `changes` no mapping, or a value has the wrong type.
        ValueError: if a name leads nowhere, the values do not fit each other, or children that were given decide a
            field.

    Examples:
        >>> import plstm_config
        >>> config = plstm_config.preset("plstm_vis_tiny")
        >>> plstm_config.change(config, {"dtype": "float32"}).block_stack.block.block0.dtype
        'float32'
    """
    check_config(config)
    if not isinstance(changes, Mapping):
        raise TypeError(f"changes: expected a mapping from names to values, got {type(changes).__name__}")
    said, problem = draft(config), None
    for name, value in changes.items():
        said, problem = _changed(said, config, str(name).split("."), value, name), None
        try:
            config = said.cls(**said.fields)
        except ValueError as error:
            problem = error  # the next changes may make it fit, such as another number of heads after another width
        else:
            said = draft(config)
    if problem is not None:
        raise problem
    for name, value in changes.items():
        _check_taken(config, str(name), value)
    return config


def _check_taken(config: Config, name: str, value: Any) -> None:
    """Refuse a change without effect: children that were given have the last word on what they are."""
    found: Any = config
    for part in name.split("."):
        found = getattr(found, part, None)
    is_open = value is None or (isinstance(value, int) and value < 0)
    if not is_open and not isinstance(value, Config) and found != as_tuple(value):
        raise ValueError(f"changes: expected {name!r} to be {found!r}, as children that were given say, got {value!r}")


def _changed(said: Draft, config: Any, path: list[str], value: Any, name: str) -> Draft:
    """A draft with one of its fields, or one of a child's, set; what it leaves open is taken from the config."""
    head, *rest = path
    known = [field for field, item in said.cls.__dataclass_fields__.items() if item.init]
    if head not in known:
        raise ValueError(
            f"changes: expected names of fields, got {name!r}: {said.cls.__name__} has no field {head!r}, "
            f"it has {', '.join(sorted(known))}"
        )
    if rest:
        made = getattr(config, head, None)
        child = said.fields.get(head, made)
        if not isinstance(child, Config | Draft):
            raise ValueError(
                f"changes: expected names of fields, got {name!r}: {said.cls.__name__}.{head} is {child!r} here"
            )
        begun, whole = (draft(child), child) if isinstance(child, Config) else (child, made)
        value = _changed(begun, whole, rest, value, name)
    return Draft(said.cls, said.fields | {head: value}, said.follows - {head})
