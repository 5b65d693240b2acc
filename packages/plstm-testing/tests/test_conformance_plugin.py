"""The suite under pytest, as a backend runs it: options, expected failures, stale entries."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from plstm_testing.conformance import load_adapter
from plstm_testing.conformance.plugin import ExpectedFailure, read_expected_failures

INFERENCE = """
import numpy as np
from plstm_testing.conformance.numpy_adapter import NumpyAdapter, plstm_1d
class Adapter(NumpyAdapter):
    name, dtypes, module_classes = "outside", ("float64",), ()
    ops = {"plstm_1d": plstm_1d}
    lacks = ("gradients", "plstm_1d_step", "plstm_2d", "plstm_2d_oriented", "plstm_graph")
adapter = Adapter()
"""
HONEST = """
from plstm_testing.conformance.numpy_adapter import adapter
adapter.dtypes = ("float64",)
"""
BROKEN = """
from plstm_testing.conformance.mutants import MUTANTS
(adapter,) = (mutant.adapter for mutant in MUTANTS if mutant.name == "missing_op")
adapter.dtypes = ("float64",)
"""
OWN = """
import pytest
def test_own(): pass
@pytest.mark.skip(reason="slow")
def test_own_skipped(): pass
@pytest.mark.parametrize("one", [])
def test_own_of_nothing(one): pass
"""
SUITE = ("--pyargs", "plstm_testing.conformance.suite")


def run(folder: Path, adapter: str | None, xfail: str = "", *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-p", "plstm_testing.conformance.plugin", "-p", "no:cacheprovider", "-q"]
    if adapter is not None:
        (folder / "adapter.py").write_text(adapter, encoding="utf-8")
        (folder / "xfail.toml").write_text(xfail, encoding="utf-8")
        command += ["--conformance-adapter", "adapter.py", "--conformance-xfail", "xfail.toml"]
    # -c: an empty configuration of its own, wherever the folder lies
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command += ["-c", "pytest.ini", *SUITE, *arguments]
    quick = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=quick)
    return result.returncode, result.stdout + result.stderr


SELECTION = ("-k", "test_signatures or (test_values and recurrent and float64 and odd_length)")
ENTRY = '[[xfail]]\ntest = "test_signatures[plstm_1d]"\nreason = "not written yet"\n'
GOLDEN = '[[xfail]]\ntest = "test_golden_ops[op_1d_*]"\nreason = "not written yet"\n'


def test_honest_backend_passes(tmp_path):
    code, text = run(tmp_path, HONEST, "", *SELECTION)
    assert code == 0, text
    assert "6 passed" in text


def test_broken_backend_fails_beyond_what_is_expected(tmp_path):
    code, text = run(tmp_path, BROKEN, GOLDEN, "-k", "test_signatures or op_1d", "-rx")
    assert code == 1, text
    assert "1 failed, 4 passed" in text
    assert "6 xfailed" in text
    assert "plstm_1d: expected the backend 'numpy' to have this op" in text
    assert "not written yet" in text


def test_stale_entry_that_passes_fails(tmp_path):
    code, text = run(tmp_path, HONEST, ENTRY, "-k", "test_signatures")
    assert code == 1, text
    assert "1 failed, 4 passed" in text
    assert "[XPASS(strict)] not written yet" in text


def test_stale_entry_that_names_nothing_fails(tmp_path):
    xfail = '[[xfail]]\ntest = "test_values[plstm_3d-*]"\nreason = "gone"\n'
    code, text = run(tmp_path, HONEST, xfail, "-k", "test_signatures")
    assert code != 0, text
    assert "no test is named 'test_values[plstm_3d-*]' (reason: gone)" in text


def test_adapter_is_needed(tmp_path):
    code, text = run(tmp_path, None)
    assert code != 0
    assert "the conformance suite needs --conformance-adapter FILE" in text


def test_the_report_is_one_page_whatever_fails(tmp_path):
    wrong = INFERENCE.replace("adapter = Adapter()", "Adapter.lacks += ('states',)\nadapter = Adapter()")
    code, text = run(tmp_path, wrong.replace("ops = {", "ops = {'plstm_1d_step': None, "), "", "-k", "nothing")
    assert code != 0
    assert "lacks: expected ops that are not among the adapter's `ops`, got ['plstm_1d_step']" in text
    failing = INFERENCE.replace("(NumpyAdapter):", "(NumpyAdapter):\n    run_op = None")
    code, text = run(tmp_path, failing, "", "--conformance-report", "report.md")
    assert code == 1
    assert "Traceback" not in text
    assert "[NOTSET]" not in text
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert page in text
    assert len(page.splitlines()) < 60
    assert "* lacks, by its own account: gradients, plstm_1d_step, plstm_2d, plstm_2d_oriented, plstm_graph" in page
    assert "| signatures | 1 | 0 | 0 | 0 |" in page
    assert re.search(r"\* test_values\[plstm_1d-\S+\] and \d+ more: TypeError: 'NoneType' object is not callable", page)


def test_a_backend_that_passes_what_it_is_asked_for_passes(tmp_path):
    code, text = run(tmp_path, INFERENCE, "", "-k", "signatures or refusals or (values and odd_length)")
    assert code == 0, text
    assert "lacks, by its own account: gradients" in text


def test_tests_of_a_backends_own_run_beside_the_suite(tmp_path):
    (tmp_path / "test_own.py").write_text(OWN, encoding="utf-8")
    code, text = run(tmp_path, HONEST, "", "test_own.py", "-k", "test_own or test_signatures")
    assert code == 0, text
    assert "6 passed, 2 skipped" in text
    assert "| signatures | 5 | 0 | 0 | 0 |" in text
    assert "own |" not in text


def test_tracebacks_are_shown_where_asked_for(tmp_path):
    failing = INFERENCE.replace("(NumpyAdapter):", "(NumpyAdapter):\n    run_op = None")
    _, text = run(tmp_path, failing, "", "--tb=short", "-k", "odd_length")
    assert "checks.py" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[[xfail]]\ntest = "a"\n', "expected a test and a reason"),
        ('[[xfail]]\ntest = "a"\nreason = ""\n', "expected a test and a reason"),
        ("[other]\nx = 1\n", r"expected tables \[\[xfail\]\] only"),
        ("no toml", "expected TOML"),
    ],
)
def test_expected_failures_need_reasons(tmp_path, content, message):
    path = tmp_path / "xfail.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=f"conformance xfail: {message}"):
        read_expected_failures(path)


def test_missing_files(tmp_path):
    with pytest.raises(ValueError, match="conformance xfail: expected a TOML file, got"):
        read_expected_failures(tmp_path / "xfail.toml")
    with pytest.raises(ValueError, match="conformance adapter: expected a Python file, got"):
        load_adapter(tmp_path / "adapter.py")
    (tmp_path / "adapter.py").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected a file that defines `adapter`"):
        load_adapter(tmp_path / "adapter.py")


def test_only_the_star_is_special_in_patterns():
    entry = ExpectedFailure("test_values[plstm_1d-*-float16-a.b]", "reason")
    assert entry.matches("test_values[plstm_1d-chunkwise-float16-a.b]")
    assert not entry.matches("test_values[plstm_1d-chunkwise-float16-axb]")
    assert not entry.matches("test_values[plstm_1d-chunkwise-float16-a.b]x")
