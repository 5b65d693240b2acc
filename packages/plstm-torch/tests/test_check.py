"""The self-check command's rows, table and exit code."""

from __future__ import annotations

import io

import pytest

from plstm_testing.conformance import cases, truth
from plstm_torch import check, ops


def printed(**arguments):
    stream = io.StringIO()
    code = check.run_checks(**arguments, out=stream)
    return code, stream.getvalue()


@pytest.fixture
def no_kernels(monkeypatch):
    monkeypatch.setattr(check, "no_kernels", lambda: "they are out of order")


def test_every_op_and_implementation_is_checked():
    rows = list(check.check_rows(["cpu"], ["float64"]))
    native = {(op, "native") for op in check.NATIVE_CASES if check.no_kernels() is None}
    assert {(row.op, row.implementation) for row in rows} == native | {
        (op, name) for op, names in check.IMPLEMENTATIONS.items() for name in names
    }
    assert all(row.passed and row.device == "cpu" and row.dtype == "float64" for row in rows), rows
    assert set(check.IMPLEMENTATIONS) == set(ops.__all__)


def test_table_and_exit_code(monkeypatch, no_kernels):
    monkeypatch.setattr(check, "IMPLEMENTATIONS", {"plstm_1d": ("recurrent", "chunkwise")})
    code, text = printed(devices=["cpu"], dtypes=["float32"])
    assert code == 0
    assert [line.split()[-1] for line in text.splitlines()[2:4]] == ["passed", "passed"]
    assert "all 2 checks passed" in text
    assert text.splitlines()[-1] == "there are no native kernels here: they are out of order"


def test_a_wrong_op_fails(monkeypatch, no_kernels):
    right = ops.plstm_1d
    monkeypatch.setattr(check, "IMPLEMENTATIONS", {"plstm_1d": ("chunkwise",)})

    def wrong(*args, mark, **keywords):
        return right(*args, mark=1.001 * mark, **keywords)

    monkeypatch.setattr(ops, "plstm_1d", wrong)
    code, text = printed(dtypes=["float32"])
    assert code == 1
    assert "FAILED" in text
    assert "1 of 1 checks failed" in text


def test_an_exception_is_printed(monkeypatch):
    monkeypatch.setattr(check, "IMPLEMENTATIONS", {"plstm_1d": ("quickest",)})
    code, text = printed(dtypes=["float64"])
    assert code == 1
    names = "'auto', 'recurrent', 'chunkwise', 'native', 'triton'"
    assert f"implementation: expected one of {names}, got 'quickest'" in text


def test_forward_alone():
    case = next(case for case in cases.cases("plstm_1d") if case.name == "odd_length")
    result = check.run_op(truth.call(case, "auto", "bfloat16", "cpu"))
    assert (result.output_dtype, result.state_dtype) == ("bfloat16", "float32")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"devices": ["abacus"]}, "devices: expected some of 'cpu'.*, got 'abacus'"),
        ({"dtypes": ["int8"]}, "dtypes: expected some of 'float64', .*, got 'int8'"),
    ],
)
def test_unknown_names(arguments, message):
    with pytest.raises(ValueError, match=message):
        list(check.check_rows(**arguments))
