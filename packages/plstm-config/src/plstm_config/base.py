"""What every config shares: checked and derived fields, children made or filled by their parent, parameters."""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields, replace
from functools import cache, lru_cache
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from plstm_config.checks import Kind

if TYPE_CHECKING:
    from plstm_config.parameters import Child, Parameter

    ConfigInterface = object  # a dataclass that is not frozen, from which type checkers let no frozen one inherit
else:
    from compoconf import ConfigInterface

C = TypeVar("C")
DType = Literal["float32", "float16", "bfloat16", "float64"]
Gating = Literal["silu", "gelu", "gelu_tanh"]
_INDENT = "    "
_TYPES = frozenset({"dtype", "param_dtype"})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[C]) -> type[C]:
    """Make a config class: a dataclass with keyword arguments that hashes and compares by its fields.

    The dataclass itself is not frozen, since its base in compoconf is not; `Config` refuses assignments instead.
    """
    return dataclass(kw_only=True, unsafe_hash=True, repr=False)(cls)


@dataclass(frozen=True)
class Draft:
    """A child on its way through `change`: what was said of it, without what its parent or itself derives.

    Attributes:
        cls: class of the child.
        fields: what was said, drafts of its own children included.
        follows: further fields that had the parent's default and get its new one.
    """

    cls: type[Config]
    fields: dict[str, Any]
    follows: frozenset[str]

    def build(self, structure: Mapping[str, Any], defaults: Mapping[str, Any]) -> Config:
        """Make the child under a parent's structure and defaults."""
        known = {item.name for item in fields(self.cls) if item.init}
        determined = {name: value for name, value in structure.items() if name in known}
        following = {name: value for name, value in defaults.items() if name in self.follows}
        return self.cls(**(determined | following | self.fields))


@frozen
class Config(ConfigInterface):
    """Base of every config.

    A config is complete once it is made: derived fields and children are filled, and what cannot work has raised a
    ValueError. Children that were passed in are copied, never changed. Nothing can be assigned afterwards, since what
    was derived would not follow: `plstm_config.change` makes a new one. (`dataclasses.replace` takes all other fields,
    the derived ones and the children among them, as they are.)

    Attributes:
        kind: what the module works on: itself, or the layers within it.
    """

    kind: ClassVar[Kind] = "any"

    def __post_init__(self) -> None:
        """Check the fields' types, fill what is derived, then check what must fit together."""
        self._derived: set[str] = set()  # fields that follow from others, here or in the parent
        self._follows: set[str] = set()  # fields that have the default of the parent
        self._completed: set[str] = set()  # fields that hold children completed by this config
        for name, hint in field_types(type(self)).items():  # type: ignore[arg-type]
            given = getattr(self, name)
            value = as_tuple(given)
            _check_type(name, value, hint)
            if value is not given:
                setattr(self, name, value)
        self._complete()
        self._check()
        self._finished = True

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse to change a finished config."""
        if "_finished" in self.__dict__:
            raise FrozenInstanceError(
                f"{name}: expected no assignment, since configs do not change, got {value!r}; "
                f"plstm_config.change(config, {{{name!r}: {value!r}}}) makes a new one"
            )
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        """Refuse to change a finished config."""
        raise FrozenInstanceError(f"{name}: expected no deletion, since configs do not change, got one")

    def __repr__(self) -> str:
        """Only what differs from the defaults and from what is derived, one field a line."""
        # a child that is given does not get what its parent has for others
        said = essential(self) | different(self, self._follows)
        shown = [item.name for item in fields(self) if item.name in said]
        if not shown:
            return f"{type(self).__name__}()"
        lines = [f"{name}={getattr(self, name)!r},".replace("\n", f"\n{_INDENT}") for name in shown]
        return "\n".join([f"{type(self).__name__}(", *(_INDENT + line for line in lines), ")"])

    def parameters(self) -> dict[str, Parameter | None]:
        """The module's own parameters by name, in the order in which they are drawn; None: switched off."""
        return {}

    def children(self) -> dict[str, Child]:
        """The module's submodules by name, in the order in which they are made; None: switched off."""
        return {}

    def _complete(self) -> None:
        """Fill derived fields and children."""

    def _check(self) -> None:
        """Raise a ValueError if fields do not fit each other; sizes below one are not known yet."""

    def _derive(self, name: str, value: Any) -> None:
        """Fill a field that was left open (None or negative); one that was given the same value counts as derived."""
        given = getattr(self, name)
        if given is None or (isinstance(given, int) and given < 0):
            setattr(self, name, value)
        if getattr(self, name) == value:
            self._derived.add(name)

    def _set(self, name: str, value: Any) -> None:
        """Fill a field while the config is made."""
        setattr(self, name, value)

    def _follow(self, name: str, values: Collection[Any]) -> None:
        """Let a field that says of what children are made tell what they are, where given ones are of another kind."""
        if len(set(values)) == 1:
            self._set(name, next(iter(values)))

    def _made_here(self, name: str, part: str, kind: Any, **given: Any) -> Any:
        """What a child that is left open has as one of its parts; given ones are compared with it.

        Args:
            name: field that holds the child.
            part: field of the child.
            kind: class of the part.
            **given: its fields.

        Returns:
            The part; None if the child is given, and the part could not be made.
        """
        child = getattr(self, name)
        needed = child is None or (isinstance(child, Draft) and part in child.follows)
        try:
            return _made(kind, tuple(given.items()))
        except (ValueError, ArithmeticError):
            if needed:
                raise
            return None

    def _child(
        self, name: str, auto: type[Config], structure: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
    ) -> Any:
        """Make a child, or fill a copy of one that was passed in.

        Args:
            name: field that holds the child.
            auto: class to make if nothing was passed in.
            structure: fields that this config determines. In a given child they may have their default, or this value.
            defaults: further fields of a child that is made here.

        Returns:
            The child.

        Raises:
            ValueError: if a given child contradicts this config.
        """
        given, defaults = getattr(self, name), defaults or {}
        if given is None:
            made = auto(**structure, **defaults)
            made._derived.update(structure)
            made._follows.update(defaults)
            self._derived.add(name)
        else:
            if isinstance(given, Draft):
                given = given.build(structure, defaults)
            made = _filled(name, given, structure)
            known = made.__dataclass_fields__
            made._derived.update(structure.keys() & known.keys())
            # what the default class is given says nothing of another class, but for the types that all follow
            following = defaults.keys() & known.keys() & (known.keys() if type(made) is auto else _TYPES)
            made._follows.update(one for one in following if getattr(made, one) == defaults[one])
            if type(made) is auto and not essential(made) and following <= made._follows:
                self._derived.add(name)
        self._completed.add(name)
        setattr(self, name, made)
        return made


@lru_cache(maxsize=256)
def _made(kind: Callable[..., Config], given: tuple[tuple[str, Any], ...]) -> Config:
    """A config of a class; kept, since it is compared with at every level above, and configs do not change."""
    return kind(**dict(given))


def _filled(name: str, given: Config, structure: Mapping[str, Any]) -> Config:
    """A copy of a child with the fields that its parent determines."""
    changes = {}
    for item in fields(given):
        if item.name not in structure:
            continue
        value, wanted = getattr(given, item.name), structure[item.name]
        default = item.default if item.default is not MISSING else None
        if value != wanted:
            require(value == default, f"{name}.{item.name}: expected {wanted!r} here (or leave it out), got {value!r}")
            changes[item.name] = wanted
    return replace(given, **changes)


def essential(config: Config) -> dict[str, Any]:
    """The fields of a config that say something: neither their class's default nor derived from others."""
    names = {item.name for item in fields(config) if item.init}
    return different(config, names - config._derived - config._follows)


def different(config: Config, names: Collection[str]) -> dict[str, Any]:
    """Those of the named fields that do not have their class's default."""
    found = {}
    for item in fields(config):
        if item.name not in names:
            continue
        value = getattr(config, item.name)
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        if value != default:
            found[item.name] = value
    return found


def draft(config: Config) -> Draft:
    """What was said of a config, see `Draft`."""
    said = {name: draft(value) if name in config._completed else value for name, value in essential(config).items()}
    return Draft(type(config), said, frozenset(config._follows))


@frozen
class ModuleConfig(Config):
    """A part of a network with a width.

    Attributes:
        input_dim: width of the input.
        output_dim: width of the output; negative: the input's.
        param_dtype: type of the parameters.
        dtype: type to compute in. float32 unless told: bfloat16 halves the memory and is fast on accelerators, but
            several times slower on most CPUs.
    """

    input_dim: int = -1
    output_dim: int = -1
    param_dtype: DType = "float32"
    dtype: DType = "float32"

    def _complete(self) -> None:
        self._derive("output_dim", self.input_dim)

    def _types(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}


@cache
def field_types(cls: Any) -> dict[str, Any]:
    """The types of the fields with which configs of a class are made."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls) if field.init}


def as_tuple(value: Any) -> Any:
    """JSON and YAML know lists only."""
    return tuple(map(as_tuple, value)) if isinstance(value, list) else value


def _check_type(name: str, value: Any, hint: Any) -> None:
    if not _reader(hint)(value):
        allowed = get_args(hint) if get_origin(hint) is Literal else None
        expected = f"one of {', '.join(map(repr, allowed))}" if allowed else _describe(hint)
        error = ValueError if allowed and isinstance(value, str) else TypeError
        raise error(f"{name}: expected {expected}, got {value!r}")


@cache
def _reader(hint: Any) -> Callable[[Any], bool]:
    """What tells whether a value is of a type. Made once for each: configs are made by the hundred."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return lambda value: True
    if origin in (Union, types.UnionType):
        options = [_reader(part) for part in parts]
        return lambda value: any(option(value) for option in options)
    if origin is Literal:
        return lambda value: any(value == part and type(value) is type(part) for part in parts)
    if hint is None or hint is type(None):
        return lambda value: value is None
    if origin is tuple:
        return _tuple_reader(parts)
    if hint is float or hint is int:
        classes = int | float if hint is float else int
        return lambda value: isinstance(value, classes) and not isinstance(value, bool)
    return lambda value: issubclass(value.cls, hint) if isinstance(value, Draft) else isinstance(value, hint)


def _tuple_reader(hints: tuple[Any, ...]) -> Callable[[Any], bool]:
    readers = [_reader(hint) for hint in hints if hint is not Ellipsis]
    if hints[1:] == (Ellipsis,):
        return lambda value: isinstance(value, tuple) and all(map(readers[0], value))
    return lambda value: (
        isinstance(value, tuple)
        and len(value) == len(readers)
        and all(reader(item) for reader, item in zip(readers, value, strict=True))
    )


def _describe(hint: Any) -> str:
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return " or ".join("None" if o is type(None) else _name(o) for o in options)


def _name(option: Any) -> str:
    if get_origin(option) is Literal:
        return " or ".join(map(repr, get_args(option)))
    return option.__name__ if isinstance(option, type) and get_origin(option) is None else str(option)


def require(condition: bool, message: str) -> None:
    """Raise a ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def require_positive(config: Config, *names: str) -> None:
    """Raise a ValueError unless each named field is at least one."""
    for name in names:
        require(getattr(config, name) >= 1, f"{name}: expected an integer >= 1, got {getattr(config, name)}")


def require_divisible(config: Config, name: str, by: str) -> None:
    """Raise a ValueError unless one field is a multiple of another.

    Args:
        config: has both.
        name: of the one.
        by: of the other.

    Raises:
        ValueError: naming both.
    """
    value, divisor = getattr(config, name), getattr(config, by)
    require(divisor >= 1 and value % divisor == 0, f"{name}: expected a multiple of {by}={divisor}, got {value}")
