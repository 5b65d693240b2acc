"""The recordings travel with the package, whole and without code."""

import json
import re
import subprocess
import sys
from pathlib import Path

import plstm_golden


def index():
    return json.loads((plstm_golden.folder() / "index.json").read_text(encoding="utf-8"))


def test_every_recording_is_listed_and_every_listed_one_is_there():
    names = {entry["name"] for entry in index()}
    assert names == {path.name.removesuffix(".npz") for path in plstm_golden.folder().iterdir() if ".npz" in path.name}
    assert len(names) == len(index())


def test_what_the_files_hold_is_described():
    described = (plstm_golden.folder() / "README.md").read_text(encoding="utf-8")
    for group in ("in/<argument>", "param/<name>", "out/<name>", "grad/<argument>"):
        assert group in described


def test_importing_it_brings_nothing_along():
    code = "import sys, plstm_golden; sys.exit(str([n for n in ('numpy', 'torch', 'jax') if n in sys.modules] or ''))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.strip() == ""


def test_readme_example_runs():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    exec(example, {})
