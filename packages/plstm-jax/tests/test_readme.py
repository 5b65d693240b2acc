"""Every example of the README runs as it stands."""

from pathlib import Path

import pytest

from plstm_testing.conformance import readme

README = Path(__file__).parents[1] / "README.md"
EXAMPLES = readme.examples(README)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    readme.run(EXAMPLES[name], README)
