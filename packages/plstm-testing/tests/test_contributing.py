"""The chapter on new backends, followed word by word: its blocks make a backend that passes the suite's layer group."""

import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import plstm_config
from plstm_testing.conformance.checks import all_checks

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


def test_the_toy_backend_draws_what_the_table_says(toy: dict[str, Any]) -> None:
    config: Any = plstm_config.pLSTM1DLayerConfig(input_dim=16, num_heads=2, JT=2, JV=2, JO=2, DV=4)
    layer, tree = toy["Layer"](config), plstm_config.parameter_tree(config)
    assert {name: array.shape for name, array in layer.parameters.items()} == {
        name: parameter.shape for name, parameter in tree.items()
    }
    values = {
        "mark.bias": -5.0,
        "passthrough.scale": 1.0,
        "source.bias": -5.0,
        "query.bias": 0.0,
        "transition.inproj_bias": np.eye(2),
    }
    for name, value in values.items():
        np.testing.assert_array_equal(layer.parameters[name], np.broadcast_to(value, tree[name].shape), err_msg=name)
    assert 0.25 < np.abs(layer.parameters["conv._conv.weight"]).max() <= 0.5
    random = [layer.parameters[name] for name in ("query.weight", "key.weight")]
    assert not np.array_equal(*random)
    init: Any = tree["query.weight"].init
    assert 0.7 < np.std(random) / init.spread(tree["query.weight"].drawn_shape) < 1.3
    assert layer(np.ones((1, 3, 16))).shape == (1, 3, 16)


def test_a_wrong_toy_backend_is_caught(toy: dict[str, Any]) -> None:
    class Late(toy["Adapter"]):  # type: ignore[misc, name-defined]
        def run_module(self, call: Any) -> Any:
            result = super().run_module(call)
            object.__setattr__(result, "output", np.roll(result.output, 1, axis=1))
            return result

    (check,) = (check for check in all_checks(Late())["layers"] if check.name == "1d_scalar-float64")
    with pytest.raises(AssertionError, match="output"):
        check.run()
