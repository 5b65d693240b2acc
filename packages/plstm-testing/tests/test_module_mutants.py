"""The suite catches every deliberately broken module, and lets the honest ones pass."""

import pytest

from plstm_testing import reference
from plstm_testing.conformance import all_checks
from plstm_testing.conformance.bidirectional_mutants import BIDIRECTIONAL_MUTANTS
from plstm_testing.conformance.input_type_mutants import INPUT_TYPE_MUTANTS
from plstm_testing.conformance.module_mutants import MODULE_MUTANTS
from plstm_testing.conformance.modules import GROUPS
from plstm_testing.conformance.numpy_adapter import NumpyAdapter

MODULE_GROUPS = (
    *("layers", "models", "stepped_layers", "packed_layers", "input_types", "module_errors", "initial_values", "files"),
)


def is_quick(name):
    # the reference's derivative is compared with itself, and float32 lies between the other two dtypes
    return not name.endswith(("-derivative", "-float32"))


def failures(checks):
    for check in checks:
        try:
            check.run()
        except Exception as error:
            yield f"{check.name}: {type(error).__name__}: {error}"


@pytest.mark.parametrize("group", MODULE_GROUPS)
def test_honest_adapter_passes(group):
    checks = [check for check in all_checks(NumpyAdapter())[group] if is_quick(check.name)]
    assert checks
    assert list(failures(checks)) == []


ALL_MUTANTS = (*MODULE_MUTANTS, *BIDIRECTIONAL_MUTANTS, *INPUT_TYPE_MUTANTS)


@pytest.mark.parametrize("mutant", ALL_MUTANTS, ids=lambda mutant: f"{mutant.group}-{mutant.name}-{mutant.cases}")
def test_mutant_is_caught(mutant, monkeypatch):
    """By what backends that compile are asked for, which is less than others are."""
    monkeypatch.setattr(mutant.adapter, "compiles", True, raising=False)
    checks = [check for check in all_checks(mutant.adapter)[mutant.group] if check.name.startswith(mutant.cases)]
    derivatives = [check for check in checks if check.name.endswith("-derivative")]  # with the outputs in float64
    outputs = [] if "gradient" in mutant.name else [check for check in checks if check not in derivatives]
    found = next(failures([*outputs, *derivatives]), None)
    assert found is not None, f"no check of {mutant.group} notices: {mutant.name}"
    assert "AssertionError" in found


def test_every_module_has_a_case():
    classes = {type(case.config) for cases in GROUPS.values() for case in cases()}
    assert classes == set(reference.module_classes())


def test_names_of_cases_are_unique():
    names = [case.name for cases in GROUPS.values() for case in cases()]
    assert len(names) == len(set(names))


def test_a_backend_without_modules_gets_no_checks_of_them():
    class Ops(NumpyAdapter):
        module_classes = ()

    found = all_checks(Ops())
    assert [found[group] for group in MODULE_GROUPS] == [[]] * len(MODULE_GROUPS)
