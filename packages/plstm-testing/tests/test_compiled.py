"""What a backend that compiles is asked for: less than others, and nothing left out."""

import pytest

from plstm_testing.conformance import all_checks
from plstm_testing.conformance.compiled import ABOUT_NUMBERS, Thorough
from plstm_testing.conformance.numpy_adapter import NumpyAdapter


class Compiling(NumpyAdapter):
    """Three forms of everything, in three dtypes."""

    compiles = True
    implementations = dict.fromkeys(NumpyAdapter.ops, ("recurrent", "chunkwise", "parallel"))
    dtypes = ("float64", "float32", "bfloat16")


def asked(adapter, group="values"):
    return [check.name for check in all_checks(adapter)[group]]


EVERYTHING = asked(Thorough(Compiling()))


FORMS, LOWER = ("recurrent", "chunkwise", "parallel"), ("float32", "bfloat16")


def test_every_case_is_asked_for_in_every_form_in_float64_and_in_every_dtype():
    names = set(asked(Compiling()))
    assert names < set(EVERYTHING)
    for name in EVERYTHING:
        op, form, dtype, case = name.split("-", 3)
        if dtype == "float64":
            assert name in names
        elif form == "auto":
            assert name not in names
        else:
            found = [one for one in FORMS if f"{op}-{one}-{dtype}-{case}" in names]
            assert len(found) == (len(FORMS) if any(part in case for part in ABOUT_NUMBERS) else 1), name


@pytest.mark.parametrize("dtype", LOWER)
def test_every_form_gets_its_share(dtype):
    shares = [sum(f"-{form}-{dtype}-" in name for name in asked(Compiling())) for form in FORMS]
    assert max(shares) < 1.5 * min(shares)


@pytest.mark.parametrize("group", ["sharing", "layouts", "composition", "isolation", "long_range"])
def test_auto_is_asked_for_values_alone_where_forms_have_names(group):
    assert not any("-auto-" in name for name in asked(Compiling(), group))
    assert any("-auto-" in name for name in asked(Thorough(Compiling()), group))


def test_one_form_without_a_name_is_asked_for_everything():
    class Nameless(Compiling):
        implementations = dict.fromkeys(NumpyAdapter.ops, ())

    assert any("-auto-" in name for name in asked(Nameless(), "isolation"))
    assert sum("-auto-bfloat16-" in name for name in asked(Nameless())) > 0


@pytest.mark.parametrize("group", ["layers", "models"])
def test_modules_are_asked_for_in_the_widest_and_the_lowest_dtype(group):
    names, everything = asked(Compiling(), group), asked(Thorough(Compiling()), group)
    assert names == [
        name for name in everything if not name.endswith(("-float64", "-float32"))
    ]  # derivatives bring float64
    assert any(name.endswith("-bfloat16") for name in names)
