"""Every example of the README runs as it stands, except those marked `no-run`."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
EXAMPLES = re.findall(
    r"^## (.+?)$|^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


def examples():
    heading = ""
    for title, code in EXAMPLES:
        heading = title or heading
        if code:
            yield pytest.param(code, id=heading)


@pytest.mark.parametrize("code", list(examples()))
def test_the_example_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(README), "exec"), {"__name__": "example"})
