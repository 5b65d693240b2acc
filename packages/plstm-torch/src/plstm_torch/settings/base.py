"""Settings that check themselves however they came: in code, from JSON, as options of the command line."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from types import UnionType
from typing import Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

# of sizes and counts that no machine will ever reach; it keeps them far from overflow in whoever computes with them
LARGEST_SIZE = 2**20
LARGEST_COUNT = 2**40
LARGEST_SEED = 2**63 - 1

AnySettings = TypeVar("AnySettings", bound="Settings")


def setting(
    default: Any = MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    option: str | None = "",
    switch: bool = False,
    repeated: bool = False,
) -> Any:
    """Declare a field of settings.

    Args:
        default: its value where nothing is said.
        low: smallest value (of each number, if there are several).
        high: largest value.
        above: what the value exceeds.
        below: what exceeds the value.
        option: name of the option on the command line; empty: that of the field; None: there is no option.
        switch: whether a truth value has no opposite option, `--no-...`.
        repeated: whether the option is given once for each element of a tuple.

    Returns:
        The dataclass field.
    """
    bounds = {"low": low, "high": high, "above": above, "below": below}
    marks = {"option": option, "bounds": bounds, "switch": switch, "repeated": repeated}
    return field(default=default, metadata=marks)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of all settings: types and ranges of the fields are checked on construction."""

    # the fields that say which files are read; they are taken from the command line and never from a run folder
    locations: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            TypeError: if a value has another type.
            ValueError: if it is out of range; both name the field, what was expected and what came.
        """
        for name, hint in _hints(type(self)).items():  # type: ignore[arg-type]
            value = getattr(self, name)
            if not _fits(value, hint):
                error = ValueError if get_origin(hint) is Literal else TypeError
                raise error(f"{name}: expected {_describe(hint)}, got {_shown(value)}")
        for entry in fields(self):
            self._check_range(entry.name, entry.metadata.get("bounds", {}))

    def _check_range(self, name: str, bounds: Mapping[str, float | None]) -> None:
        value = getattr(self, name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                self.refuse(name, "a finite number")
            if not isinstance(number, int | float):
                continue
            low, high, above, below = (bounds.get(key) for key in ("low", "high", "above", "below"))
            inside = (low is None or number >= low) and (high is None or number <= high)
            if not (inside and (above is None or number > above) and (below is None or number < below)):
                self.refuse(name, _describe_range(low, high, above, below))

    def expect(self, holds: bool, name: str, expected: str) -> None:
        """Raise the ValueError of a field unless something holds.

        Args:
            holds: what has to be true.
            name: of the field.
            expected: what its value should be.

        Raises:
            ValueError: naming the field, what was expected and what came.
        """
        if not holds:
            self.refuse(name, expected)

    def refuse(self, name: str, expected: str) -> None:
        """Raise the ValueError of a field; arguments as in `expect`."""
        raise ValueError(f"{name}: expected {expected}, got {_shown(getattr(self, name))}")


def from_mapping(cls: type[AnySettings], mapping: Any) -> AnySettings:
    """Make settings from JSON: lists become tuples, unknown fields are refused.

    Args:
        cls: class of the settings.
        mapping: field names and values.

    Returns:
        The settings.

    Raises:
        TypeError: if it is no mapping, or a value has another type.
        ValueError: if a field is missing, unknown or out of range.
    """
    if not isinstance(mapping, Mapping):
        raise TypeError(f"{cls.__name__}: expected a JSON object, got {_shown(mapping)}")
    entries = fields(cls)
    known = [entry.name for entry in entries]
    unknown = sorted(_shown(name) for name in set(mapping) - set(known))
    if unknown:
        raise ValueError(f"{cls.__name__}: expected the settings {', '.join(known)}, got {', '.join(unknown[:3])}")
    missing = [entry.name for entry in entries if entry.default is MISSING and entry.name not in mapping]
    if missing:
        raise ValueError(f"{cls.__name__}: expected the setting {', '.join(missing)}, got none")
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in mapping.items()})


@cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {entry.name: hints[entry.name] for entry in fields(cls)}


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[-1] is Ellipsis:
            return all(_fits(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is hint


def _describe(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_describe(option) for option in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin is tuple:
        inner = _describe(arguments[0])
        return f"a list of {inner}" if arguments[-1] is Ellipsis else f"{len(arguments)} times {inner}"
    names = {int: "an integer", float: "a number", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(hint, str(hint))


def _describe_range(low: float | None, high: float | None, above: float | None, below: float | None) -> str:
    parts = ((low, "at least"), (above, "above"), (high, "at most"), (below, "below"))
    return " and ".join(f"{word} {bound}" for bound, word in parts if bound is not None)


def _shown(value: Any, longest: int = 80) -> str:
    """A value in a message: on one line, and not a page of it."""
    text = repr(value) if not isinstance(value, int) or value.bit_length() < 256 else "an integer of many digits"
    return text if len(text) <= longest else f"{text[:longest]}..."
