"""Options from settings: each field of a settings class is one option, with its documentation and its default."""

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import MISSING, dataclass, fields, make_dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

import docstring_parser
import tyro

from plstm_torch.optional import UserError
from plstm_torch.settings import Settings, from_mapping

AnySettings = TypeVar("AnySettings", bound=Settings)
_CONFIG = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
# how tyro draws the box around its errors, in Unicode or in ASCII
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_CORNERS = ("╭", "╰")
_RULE = re.compile(r"[─-]{3,}")
_SIMILAR = re.compile(r"Perhaps you meant: (--[\w-]+)")


@dataclass(frozen=True)
class Part:
    """Some options of a command.

    Attributes:
        cls: the settings that they make.
        default: what they start from; a settings object, or only some of its fields.
        only: names of the fields that are options; empty: all.
    """

    cls: type[Settings]
    default: Any = None
    only: tuple[str, ...] = ()


def options_class(name: str, about: str, parts: dict[str, Part]) -> Any:
    """Make the class of a command's options, which checks nothing: values may fit only once all are known.

    Args:
        name: of the command.
        about: what it does.
        parts: its options, by the name of the attribute that will hold them.

    Returns:
        A dataclass for tyro.
    """
    entries: list[Any] = []
    for attribute, part in parts.items():
        own = _part_class(part)
        entries.append((attribute, own, start(own, part)))
    made: Any = make_dataclass(f"{name.title()}Options", entries, frozen=True)
    made.__doc__ = about
    return made


def start(own: Any, part: Part) -> Any:
    """Return options with their defaults; what has none must be given."""
    defaults = {entry.name: entry.default for entry in fields(part.cls)}
    if part.default is not None:
        defaults |= {name: getattr(part.default, name) for name in defaults}
    return own(**{e.name: tyro.MISSING if defaults[e.name] is MISSING else defaults[e.name] for e in fields(own)})


def settings_of(cls: type[AnySettings], options: Any, base: Any = None) -> AnySettings:
    """Make settings of options.

    Args:
        cls: class of the settings.
        options: what the command line says.
        base: settings that hold the fields without an option; None: their defaults.

    Returns:
        The settings.

    Raises:
        UserError: if a value is out of range.
    """
    values = {} if base is None else {entry.name: getattr(base, entry.name) for entry in fields(cls)}
    values |= {entry.name: getattr(options, entry.name) for entry in fields(options)}
    try:
        return from_mapping(cls, values)
    except (TypeError, ValueError) as error:
        raise UserError(_by_option(cls, str(error))) from error


def _by_option(cls: type[Settings], message: str) -> str:
    """Say what the command line calls the fields that a message names, where that is something else."""
    for entry in fields(cls):
        option = entry.metadata["option"]
        if option and option != entry.name:
            word = option.upper() if entry.default is MISSING else f"--{option}"
            message = re.sub(rf"\b{entry.name}\b", word, message)
    return message


def parse(options: Any, words: Sequence[str], *, about: str | None = None, prog: str, default: Any = None) -> Any:
    """Read the words of a command line.

    Args:
        options: a dataclass, or a union of such as subcommands.
        words: of the command line.
        about: what the program does, for its help.
        prog: its name.
        default: an object of the class; None: its own defaults.

    Returns:
        An object of the class.

    Raises:
        UserError: if the words make no sense.
        SystemExit: after printing help.
    """
    said = io.StringIO()
    start_from = {} if default is None else {"default": default}
    try:
        with redirect_stderr(said):
            return tyro.cli(options, args=list(words), prog=prog, description=about, config=_CONFIG, **start_from)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(_in_one_line(said.getvalue())) from None


def _part_class(part: Part) -> Any:
    hints, help_texts = get_type_hints(part.cls), documentation(part.cls)
    entries: list[Any] = []
    for entry in fields(part.cls):
        marks = entry.metadata
        if marks["option"] is None or (part.only and entry.name not in part.only):
            continue
        name = (marks["option"] or entry.name).replace("_", "-")
        hint: Any = Annotated[hints[entry.name], tyro.conf.arg(name=name, help=help_texts[entry.name])]
        if entry.default is MISSING and part.default is None:
            hint = _marked(
                tyro.conf.Positional,
                Annotated[hint, tyro.conf.arg(metavar=name.upper(), help_behavior_hint="(required)")],
            )
        if marks["switch"]:
            hint = _marked(tyro.conf.FlagCreatePairsOff, hint)
        if marks["repeated"]:
            hint = _marked(tyro.conf.UseAppendAction, hint)
        entries.append((entry.name, hint))
    made: Any = make_dataclass(part.cls.__name__.removesuffix("Settings"), entries, frozen=True)
    made.__doc__ = (part.cls.__doc__ or "").split("\n", maxsplit=1)[0]
    return made


def _marked(marker: Any, hint: Any) -> Any:
    """Annotate a type that is known at run time only."""
    return marker[hint]


def documentation(cls: type) -> dict[str, str]:
    """Read what the docstrings of a class and its bases say of their attributes."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        for entry in docstring_parser.parse(base.__doc__ or "").params:
            found[entry.arg_name] = " ".join((entry.description or "").split())
    return found


def _in_one_line(message: str) -> str:
    """Take what tyro says in a box: title, what is wrong, advice; in Unicode the title is part of the frame."""
    sections: list[list[str]] = [[]]
    lines = _COLOR.sub("", message).splitlines()
    framed = any(line.startswith(_CORNERS) for line in lines)
    for line in lines:
        text = line.strip(" │")
        if _RULE.fullmatch(text):
            sections.append([])
        elif text and not line.startswith(_CORNERS):
            sections[-1].append(text)
    said = [" ".join(section) for section in sections]
    similar = next((match for match in map(_SIMILAR.match, said) if match), None)
    advice = "" if similar is None else f"; did you mean {similar[1]}?"
    return (said[0] if framed or len(said) == 1 else said[1]) + advice
