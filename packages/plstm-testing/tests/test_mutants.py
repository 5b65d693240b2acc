"""The suite catches every deliberately broken backend, and lets the honest one pass."""

from collections.abc import Iterator

import pytest

from plstm_testing.conformance import all_checks
from plstm_testing.conformance.checks import Check
from plstm_testing.conformance.mutants import MUTANTS
from plstm_testing.conformance.numpy_adapter import NumpyAdapter, adapter

GROUPS = ("signatures", "values", "sharing", "steps", "errors", "isolation", "composition", "golden_ops")


class OneForm(NumpyAdapter):
    """The honest adapter, in the dtypes where faults and rounding differ most."""

    dtypes = ("float64", "bfloat16")


def failures(checks: list[Check]) -> Iterator[str]:
    for check in checks:
        try:
            check.run()
        except Exception as error:
            yield f"{check.name}: {type(error).__name__}: {error}"


def is_checked(name: str) -> bool:
    # one form of the reference is enough, and the long cases cost most of the time
    return "-auto-" not in name and "default_block" not in name and "several" not in name


@pytest.mark.parametrize("group", [*GROUPS, "layouts"])
def test_honest_adapter_passes(group):
    checks = [check for check in all_checks(OneForm())[group] if is_checked(check.name)]
    assert checks
    assert list(failures(checks)) == []


def test_honest_adapter_passes_over_long_ranges():
    checks = [check for check in all_checks(adapter)["long_range"] if "plstm_2d-recurrent" in check.name]
    assert len(checks) == 2
    assert list(failures(checks)) == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.op}-{mutant.name}")
def test_mutant_is_caught(mutant, monkeypatch):
    """By what backends that compile are asked for, which is less than others are."""
    mutant.adapter.dtypes = ("float64", "float32", "bfloat16")
    monkeypatch.setattr(mutant.adapter, "compiles", True, raising=False)
    checks = [check for group in GROUPS for check in all_checks(mutant.adapter)[group] if is_checked(check.name)]
    found = next(failures([check for check in checks if check.name.startswith((mutant.op, "op_"))]), None)
    assert found is not None, f"no check of {mutant.op} notices: {mutant.name}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.op}-{mutant.name}")
def test_mutant_breaks_its_own_op_only(mutant):
    mutant.adapter.dtypes = ("float64",)
    checks = [check for check in all_checks(mutant.adapter)["values"] if "odd_" in check.name or "dense" in check.name]
    others = [check for check in checks if not check.name.startswith(f"{mutant.op}-") and is_checked(check.name)]
    assert list(failures(others)) == []
