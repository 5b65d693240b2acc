"""Which of the checks a backend is asked for where each costs a compilation.

Compiling takes a hundred times what the tiny programs of the suite take, so what one program proves is not asked of a
second one. Every case is asked for in float64, where faults are easiest to tell from rounding. In lower precision the
forms of an op take turns over its cases, except where range and rounding are what a case is about, and modules are
asked for in the lowest only. What "auto" resolves to has been asked for by its own name.
"""

import zlib
from collections.abc import Sequence
from typing import Any

from .adapter import Adapter

WIDEST = "float64"
# Parts of the names of cases that are asked for in every dtype.
ABOUT_NUMBERS = ("special", "huge", "default")


class Thorough:
    """A backend that compiles, asked for everything that any other is asked for.

    Args:
        adapter: the backend.
    """

    compiles = False

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)


def compiles(adapter: Adapter) -> bool:
    """Whether a backend is asked for as few programs as prove it right."""
    return bool(getattr(adapter, "compiles", False))


def is_asked(adapter: Adapter, dtype: str, case: str, form: str, forms: Sequence[str]) -> bool:
    """Whether a backend is asked for a case of an op in a dtype.

    Args:
        adapter: the backend.
        dtype: one of the dtypes of the adapter.
        case: name of the case.
        form: the implementation, one of `forms` or "auto".
        forms: the implementations of the op that the backend names.

    Returns:
        Always true of backends that do not compile.
    """
    lower = [one for one in adapter.dtypes if one != WIDEST]
    if not (compiles(adapter) and forms) or dtype not in lower or len(lower) == len(adapter.dtypes):
        return True
    if form not in forms:
        return False
    turn = zlib.crc32(case.encode()) + lower.index(dtype)  # by name, so that a further case moves no turn
    return forms.index(form) == turn % len(forms) or any(part in case for part in ABOUT_NUMBERS)


def module_dtypes(adapter: Adapter, dtypes: Sequence[str]) -> tuple[str, ...]:
    """The dtypes in which a backend is asked for its modules.

    Args:
        adapter: the backend.
        dtypes: from the widest to the lowest; what lies between shows no fault that neither of the two shows.

    Returns:
        Those that the backend has, or of these the first and the last.
    """
    served = tuple(dtype for dtype in dtypes if dtype in adapter.dtypes)
    return (served[0], served[-1]) if compiles(adapter) and len(served) > 2 else served
