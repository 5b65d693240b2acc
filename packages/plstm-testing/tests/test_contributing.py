"""The chapter on new backends, followed word by word: its blocks make a backend that passes what it is asked for."""

import re
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import plstm_config
from plstm_testing.conformance.checks import all_checks
from plstm_testing.conformance.lacks import NotAskedError

CHAPTER = re.compile(r"## Add a backend\n(.*?)\n## ", flags=re.DOTALL)
TEXT = (Path(__file__).parents[3] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks() -> str:
    """The code of the chapter as one file."""
    chapter = CHAPTER.search(TEXT)
    assert chapter is not None
    return "\n\n".join(re.findall(r"```python\n(.*?)```", chapter.group(1), flags=re.DOTALL))


@pytest.fixture(scope="module")
def toy() -> dict[str, Any]:
    # the method of the class that the block before it opens
    names: dict[str, Any] = {"__name__": "toy"}
    exec(compile(textwrap.dedent(blocks()), "CONTRIBUTING.md", "exec"), names)
    return names


def test_the_toy_backend_passes_the_layer_group(toy: dict[str, Any]) -> None:
    checks = all_checks(toy["adapter"])["layers"]
    assert len(checks) > 20
    for check in checks:
        check.run()


def test_the_toy_backend_says_what_it_lacks(toy: dict[str, Any]) -> None:
    checks = all_checks(toy["adapter"])
    assert not checks["files"]
    for check in checks["module_errors"]:
        with suppress(NotAskedError):
            check.run()
    for check in [*checks["stepped_layers"], *checks["packed_layers"]]:
        with pytest.raises(NotAskedError, match="not asked for, since the adapter lacks "):
            check.run()


def test_the_toy_backend_draws_what_the_table_says(toy: dict[str, Any]) -> None:
    checks = all_checks(toy["adapter"])["initial_values"]
    assert checks
    for check in checks:
        check.run()
    layer = toy["Layer"](plstm_config.pLSTM1DLayerConfig(input_dim=16, num_heads=2))
    assert layer(np.ones((1, 3, 16))).shape == (1, 3, 16)
