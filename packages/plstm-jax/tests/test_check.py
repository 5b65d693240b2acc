"""The self-check command's rows, table and exit code."""

import io
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from plstm_jax import check, ops
from plstm_jax.__main__ import main
from plstm_testing import selfcheck
from plstm_testing.conformance import cases, truth


def printed(**arguments):
    stream = io.StringIO()
    code = check.run_checks(**arguments, stream=stream)
    return code, stream.getvalue()


@pytest.fixture
def no_kernels(monkeypatch):
    monkeypatch.setattr(check, "no_kernels", lambda: "they are out of order")


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_every_op_and_implementation_agrees_with_the_reference(monkeypatch, dtype):
    chosen = {"plstm_1d": ("packed",), "plstm_2d": ("P_state_tracking",), "plstm_2d_oriented": ("L_odd_sides",)}
    chosen |= {"plstm_1d_step": ("state_tracking",), "plstm_graph": ("dense_states",)}
    monkeypatch.setattr(selfcheck, "CASES", chosen)
    rows = list(check.check_rows(["cpu"], [dtype], quick=True))
    native = {(op, "native") for op in check.NATIVE_CASES if check.no_kernels() is None}
    assert {(row.op, row.implementation) for row in rows} == native | {
        (op, name) for op, names in check.IMPLEMENTATIONS.items() for name in names
    }
    assert all(row.passed and row.device == "cpu" and row.dtype == dtype for row in rows), rows
    assert set(check.IMPLEMENTATIONS) == {name for name in ops.__all__ if name.startswith("plstm")}


AS_USERS = """
from plstm_jax import check
from plstm_testing import selfcheck
check.IMPLEMENTATIONS = {"plstm_1d": ("chunkwise",), "plstm_2d": ("parallel",)}
check.no_kernels = lambda: "they are out of order"
selfcheck.CASES = {"plstm_1d": ("odd_length",), "plstm_2d": ("L_output_only",)}
assert check.run_checks(["cpu"], ["float32"]) == 0
"""


def test_what_is_compiled_as_users_compile_it_agrees_too():
    """Tests may run with flags of XLA that make compiling quick; users do not."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    run = subprocess.run([sys.executable, "-c", AS_USERS], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "all 2 checks passed" in run.stdout


def test_table_and_exit_code(monkeypatch, capsys, no_kernels):
    monkeypatch.setattr(check, "IMPLEMENTATIONS", {"plstm_1d": ("recurrent", "chunkwise")})
    monkeypatch.setattr(selfcheck, "CASES", {"plstm_1d": ("initial_state",)})
    assert main(["check", "--dtypes", "float32", "--devices", "cpu", "--quick"]) == 0
    text = capsys.readouterr().out
    assert text.count("passed") == 3
    assert "all 2 checks passed" in text
    assert text.splitlines()[-1] == "there are no native kernels here: they are out of order"


def test_a_wrong_op_fails(monkeypatch, no_kernels):
    right = ops.plstm_1d
    monkeypatch.setattr(check, "IMPLEMENTATIONS", {"plstm_1d": ("chunkwise",)})
    monkeypatch.setattr(selfcheck, "CASES", {"plstm_1d": ("initial_state",)})
    monkeypatch.setattr(ops, "plstm_1d", lambda *args, mark, **keywords: right(*args, mark=1.001 * mark, **keywords))
    code, text = printed(dtypes=["float32"])
    assert code == 1
    assert "FAILED" in text
    assert "1 of 1 checks failed" in text


def test_an_exception_is_printed(monkeypatch, no_kernels):
    monkeypatch.setattr(check, "IMPLEMENTATIONS", {"plstm_1d": ("quickest",)})
    code, text = printed(dtypes=["float64"])
    assert code == 1
    assert "implementation: expected one of 'auto', 'recurrent', 'chunkwise', 'native', got 'quickest'" in text


@pytest.mark.parametrize("kept", [0, 1])
def test_what_no_op_takes_reaches_the_op(monkeypatch, kept):
    monkeypatch.setattr(check, "_programs", {"another": None} if kept else {})
    (good,) = (case for case in cases.cases("plstm_1d") if case.name == "odd_length")
    call = truth.call(good, "recurrent", "float32", "cpu")
    call = replace(call, arguments={**call.arguments, "source": call.arguments["source"].tolist()})
    with pytest.raises(TypeError, match=r"^source: expected .*, got list"):
        check.run_op(call)


def test_dtypes_of_a_forward_pass():
    case = next(case for case in cases.cases("plstm_1d") if case.name == "odd_length")
    result = check.run_op(truth.call(case, "recurrent", "float16", "cpu"))
    assert (result.output_dtype, result.state_dtype) == ("float16", "float32")


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


def test_options_that_the_compiler_does_not_know_are_left_out(monkeypatch):
    known = dict(check.quick_compilation())
    assert known.keys() <= check._QUICK.keys()
    monkeypatch.setattr(check, "_QUICK", {**known, "xla_no_such_option": 1})
    assert check.quick_compilation.__wrapped__() == known
