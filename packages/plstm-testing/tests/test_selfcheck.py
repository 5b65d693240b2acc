"""The table of the backends' self-check."""

import math
from dataclasses import replace

import pytest

from plstm_testing import selfcheck
from plstm_testing.conformance import cases
from plstm_testing.conformance.mutants import MUTANTS
from plstm_testing.conformance.numpy_adapter import adapter


def test_the_reference_passes():
    rows = list(selfcheck.check(adapter.run_op, adapter.implementations, dtypes=["float64", "bfloat16"]))
    assert [(row.op, row.implementation, row.device) for row in rows[::2]] == [
        (op, "recurrent", "cpu") for op in adapter.ops
    ]
    assert all(row.passed and not row.message for row in rows)
    assert all(row.output_error == 0 == row.gradient_error for row in rows if row.dtype == "float64")
    assert all(0 < row.output_error < 0.01 for row in rows if row.dtype == "bfloat16")


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.name == "no_gradient_between_chunks"], ids=lambda m: m.name)
def test_a_wrong_gradient_fails_its_row(mutant):
    (row,) = selfcheck.check(mutant.adapter.run_op, {"plstm_1d": ["recurrent"]}, dtypes=["float64"])
    assert not row.passed
    assert row.output_error == 0
    assert row.gradient_error > 0.01


def test_an_exception_becomes_a_row():
    (row,) = selfcheck.check(adapter.run_op, {"plstm_1d": ["quickest"]}, dtypes=["float32"])
    assert not row.passed
    assert math.isnan(row.output_error)
    assert "ValueError: implementation: expected one of 'recurrent', 'auto', got 'quickest'" in row.message


def test_nan_fails_its_row():
    def spoilt(call):
        result = adapter.run_op(call)
        states = result.last_state * math.nan if result.last_state is not None else None
        return replace(result, last_state=states)

    (row,) = selfcheck.check(spoilt, {"plstm_1d": ["recurrent"]}, dtypes=["float32"])
    assert not row.passed
    assert math.isnan(row.output_error)


def test_chosen_cases_exist():
    for op, chosen in selfcheck.CASES.items():
        assert set(chosen) <= {case.name for case in cases.cases(op.removesuffix("_step"))}
