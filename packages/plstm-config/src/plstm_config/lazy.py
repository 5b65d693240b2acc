"""Packages whose names are imported when they are first asked for, so that nobody waits for what is not used."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, places: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the `__getattr__` and the `__dir__` of a package.

    Args:
        package: its name.
        places: the module of each name, relative (".module") or absolute; a name in a place of its own is that module.

    Returns:
        Both functions.
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(places[name], package)
        found = module if places[name] == f".{name}" else getattr(module, name)
        setattr(sys.modules[package], name, found)
        return found

    def names() -> list[str]:
        return sorted([*places, "__version__"])

    return get, names
