"""What every config shares: checked fields, derived fields, and children made or filled by their parent."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from compoconf import ConfigInterface

DType = Literal["float32", "float16", "bfloat16", "float64"]
Gating = Literal["silu", "gelu", "gelu_tanh"]


@dataclass(kw_only=True)
class Config(ConfigInterface):
    """Base of every config.

    A config is complete once it is made: derived fields and children are filled, and what cannot work has raised a
    ValueError. Children that were passed in are copied, never changed.
    """

    def __post_init__(self) -> None:
        """Check the fields' types, fill what is derived, then check what must fit together."""
        for name, hint in _hints(type(self)).items():  # type: ignore[arg-type]
            _check_type(name, getattr(self, name), hint)
        self._complete()
        self._check()

    def _complete(self) -> None:
        """Fill derived fields and children."""

    def _check(self) -> None:
        """Raise a ValueError if fields do not fit each other; sizes below one are not known yet."""


@dataclass(kw_only=True)
class ModuleConfig(Config):
    """A part of a network with a width.

    Attributes:
        input_dim: width of the input.
        output_dim: width of the output; negative: the input's.
        param_dtype: type of the parameters.
        dtype: type to compute in.
    """

    input_dim: int = -1
    output_dim: int = -1
    param_dtype: DType = "float32"
    dtype: DType = "bfloat16"

    def _complete(self) -> None:
        if self.output_dim < 0:
            self.output_dim = self.input_dim

    def _types(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}


@cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls) if field.init}


def _check_type(name: str, value: Any, hint: Any) -> None:
    if not _fits(value, hint):
        allowed = get_args(hint) if get_origin(hint) is Literal else None
        expected = f"one of {', '.join(map(repr, allowed))}" if allowed else _describe(hint)
        error = ValueError if allowed and isinstance(value, str) else TypeError
        raise error(f"{name}={value!r}: expected {expected}, got {type(value).__name__}")


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in get_args(hint))
    if hint is None or hint is type(None):
        return value is None
    if origin is tuple:
        return isinstance(value, tuple) and _fits_tuple(value, get_args(hint))
    if origin is list:
        return isinstance(value, list) and all(_fits(item, get_args(hint)[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _fits_tuple(value: tuple[Any, ...], hints: tuple[Any, ...]) -> bool:
    if len(hints) == 2 and hints[1] is Ellipsis:
        return all(_fits(item, hints[0]) for item in value)
    return len(value) == len(hints) and all(map(_fits, value, hints))


def _describe(hint: Any) -> str:
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return " or ".join("None" if o is type(None) else getattr(o, "__name__", str(o)) for o in options)


def require(condition: bool, message: str) -> None:
    """Raise a ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def require_positive(config: Config, *names: str) -> None:
    """Raise a ValueError unless each named field is at least one."""
    for name in names:
        require(getattr(config, name) >= 1, f"{name}={getattr(config, name)} is not positive")


def require_divisible(config: Config, name: str, by: str) -> None:
    """Raise a ValueError unless one field is a multiple of another."""
    value, divisor = getattr(config, name), getattr(config, by)
    require(divisor >= 1 and value % divisor == 0, f"{name}={value} is not divisible by {by}={divisor}")


def child(
    name: str,
    given: Config | None,
    auto: type[Config],
    structure: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> Any:
    """Make a child of a config, or fill a copy of one that was passed in.

    Args:
        name: field that holds the child, for messages.
        given: what was passed in.
        auto: class to make if nothing was passed in.
        structure: fields that the parent determines. In a given child they may have their default, or this value.
        defaults: further fields of a child that is made here.

    Returns:
        A complete child.

    Raises:
        ValueError: if a given child contradicts the parent.
    """
    if given is None:
        return auto(**structure, **defaults)
    changes = {}
    for field in fields(given):
        if field.name not in structure:
            continue
        value, wanted = getattr(given, field.name), structure[field.name]
        default = field.default if field.default is not MISSING else None
        if value != wanted:
            require(value == default, f"{name}.{field.name}={value!r}: expected {wanted!r} here (or leave it out)")
            changes[field.name] = wanted
    return replace(given, **changes)
