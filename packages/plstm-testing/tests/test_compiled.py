"""What a backend that compiles is asked for: less than others, and nothing left out."""

import pytest

from plstm_testing.conformance import all_checks
from plstm_testing.conformance.compiled import ABOUT_NUMBERS, Thorough
from plstm_testing.conformance.numpy_adapter import NumpyAdapter


class Compiling(NumpyAdapter):
    """Two forms of everything, in three dtypes."""

    compiles = True
    implementations = dict.fromkeys(NumpyAdapter.ops, ("recurrent", "chunkwise"))
    dtypes = ("float64", "float32", "bfloat16")


def asked(adapter, group="values"):
    return [check.name for check in all_checks(adapter)[group]]


EVERYTHING = asked(Thorough(Compiling()))


def test_every_case_is_asked_for_in_every_form_in_float64_and_lower_precision():
    names = set(asked(Compiling()))
    assert names < set(EVERYTHING)
    for name in EVERYTHING:
        if "-float64-" in name:
            assert name in names
            lower = {name.replace("float64", dtype) for dtype in ("float32", "bfloat16")} & names
            everywhere = any(part in name.split("-", 3)[-1] for part in ABOUT_NUMBERS)
            assert len(lower) == (0 if "-auto-" in name else 2 if everywhere else 1), name


def test_both_lower_dtypes_get_their_share():
    names = asked(Compiling())
    shares = [sum(f"-{dtype}-" in name for name in names) for dtype in ("float32", "bfloat16")]
    assert max(shares) < 1.2 * min(shares)


@pytest.mark.parametrize("group", ["sharing", "layouts", "composition", "isolation", "long_range"])
def test_auto_is_asked_for_values_alone_where_forms_have_names(group):
    assert not any("-auto-" in name for name in asked(Compiling(), group))
    assert any("-auto-" in name for name in asked(Thorough(Compiling()), group))


def test_one_form_without_a_name_is_asked_for_everything():
    class Nameless(Compiling):
        implementations = dict.fromkeys(NumpyAdapter.ops, ())

    assert any("-auto-" in name for name in asked(Nameless(), "isolation"))
    assert sum("-auto-bfloat16-" in name for name in asked(Nameless())) > 0


@pytest.mark.parametrize("group", ["layers", "models", "stepped_layers"])
def test_modules_take_turns_in_lower_precision(group):
    names = set(asked(Compiling(), group))
    for name in asked(Thorough(Compiling()), group):
        if name.endswith("-float32") and "-pieces-" not in name:  # pieces come in float64 alone
            both = {name, name.removesuffix("float32") + "bfloat16"}
            assert names & both, name
