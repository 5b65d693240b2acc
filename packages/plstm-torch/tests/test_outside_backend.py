"""What plstm-testing's guide says of an adapter in torch, done: gradients are those that the suite wants."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plstm_testing.conformance import Result, all_checks
from plstm_torch.ops import plstm_1d

GUIDE = Path(__file__).parents[2] / "plstm-testing" / "README.md"
CASES = ("odd_length", "initial_state", "length_zero", "state_tracking", "own_scale")


@pytest.fixture(scope="module")
def adapter() -> Any:
    blocks = re.findall(r"```python no-run\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (run_op,) = (block for block in blocks if block.startswith("def run_op("))
    names: dict[str, Any] = {"np": np, "torch": torch, "Result": Result}
    exec(compile(run_op, str(GUIDE), "exec"), names)
    fields = {"name": "outside", "ops": {"plstm_1d": plstm_1d}, "implementations": {}, "dtypes": ("float64",)}
    fields |= {"devices": ("cpu",), "module_classes": (), "golden_kinds": (), "run_op": names["run_op"]}
    fields |= {"lacks": ("packing", "plstm_1d_step", "plstm_2d", "plstm_2d_oriented", "plstm_graph")}
    return type("Adapter", (), fields)()


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_of_the_guide(adapter, case):
    (check,) = (one for one in all_checks(adapter)["values"] if one.name == f"plstm_1d-auto-float64-{case}")
    check.run()


def test_errors_pass_through_the_guide(adapter):
    (check,) = (one for one in all_checks(adapter)["errors"] if one.name == "plstm_1d-auto-list_as_query")
    check.run()


def test_packing_has_to_be_refused(adapter):
    """The guide's adapter hands borders on as they are, so what the op does not lack it answers."""
    (check,) = all_checks(adapter)["refusals"]
    with pytest.raises(AssertionError, match="expected an error, since the adapter lacks packing"):
        check.run()
