"""Do the errors of a package speak one dialect? `name: expected ..., got ...`, read from its sources.

An error names the argument, or the path of a field, then says what was expected and what came. Looked at is the first
argument of every `ValueError`, `TypeError` and `IndexError` that the sources make.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

_ERRORS = {"ValueError": 0, "TypeError": 0, "IndexError": 0}
# A name is not followed by its value, which stands at the end; names of outer things come first: "file: field: ...".
_DIALECT = re.compile(r"[^=:]+(: [^=:]+)*: expected .+, got .+", re.DOTALL)


def run(package: str, exceptions: Mapping[str, str], makers: Mapping[str, int] | None = None) -> list[str]:
    """Read the messages in the sources of a package.

    Args:
        package: name of the package.
        exceptions: messages as they stand in the source (without quotes), or expressions that give one, each with the
            reason why it is another.
        makers: functions that make errors, too, each with the position of the message among its arguments.

    Returns:
        A line for each message that does not follow, and for each exception that is none.
    """
    wrong, met = [], set()
    for place, message in _messages(package, _ERRORS | dict(makers or {})):
        shown = _text(message)
        if shown is not None and _DIALECT.fullmatch(shown):
            continue
        source = ast.unparse(message) if shown is None else shown
        met.add(source)
        if source not in exceptions:
            wrong.append(f"{place}: expected 'name: expected ..., got ...', got {source!r}")
    return wrong + [f"exceptions: expected messages of {package}, got {one!r}" for one in sorted(set(exceptions) - met)]


def sources(package: str) -> list[Path]:
    """The Python files of an installed package.

    Args:
        package: name of the package.

    Returns:
        Their paths, sorted.

    Raises:
        ValueError: if there is no such package.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"package: expected an installed package, got {package!r}")
    return sorted(path for root in spec.submodule_search_locations for path in Path(root).rglob("*.py"))


def _messages(package: str, makers: Mapping[str, int]) -> Iterator[tuple[str, ast.expr]]:
    for path in sources(package):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            position = makers.get(node.func.id)
            if position is not None and position < len(node.args):
                yield f"{path.name}:{node.lineno}", node.args[position]


def _text(message: ast.expr) -> str | None:
    """The words of a message, `{}` for what is put into it; None if they do not stand in the source."""
    if isinstance(message, ast.Constant) and isinstance(message.value, str):
        return message.value
    if isinstance(message, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in message.values)
    return None
