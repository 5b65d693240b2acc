"""Do the examples of a README run as they stand? Those marked `no-run` need what only a reader has."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_PARTS = re.compile(r"^## (.+?)$|^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(readme: Path) -> dict[str, str]:
    """The examples of a README.

    Args:
        readme: the file.

    Returns:
        Their code by the heading that they stand under, with a number where it is not the first.

    Raises:
        ValueError: if there is none.
    """
    found: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for heading, code in _headed(readme.read_text(encoding="utf-8")):
        seen[heading] += 1
        found[f"{heading} ({seen[heading]})" if seen[heading] > 1 else heading] = code
    if not found:
        raise ValueError(f"readme: expected blocks that begin with ```python, got none in {readme}")
    return found


def run(code: str, readme: Path) -> None:
    """Execute an example in the working directory.

    Args:
        code: one of `examples`.
        readme: where it stands, for tracebacks.
    """
    exec(compile(code, str(readme), "exec"), {"__name__": "example"})


def example_test(readme: Path) -> Callable[..., None]:
    """Make the test that a package's own tests need: every example runs in a folder of its own.

    Args:
        readme: the file.

    Returns:
        A test for pytest, to be given a name that begins with "test_".
    """
    found = examples(readme)

    @pytest.mark.parametrize("name", found)
    def test(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        run(found[name], readme)

    return test


def _headed(text: str) -> Iterator[tuple[str, str]]:
    heading = ""
    for title, code in _PARTS.findall(text):
        heading = title or heading
        if code:
            yield heading, code
