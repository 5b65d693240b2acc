"""What a backend says that it lacks is not asked for, and refused; the rest is asked for as ever."""

from dataclasses import replace

import pytest

from plstm_testing import reference
from plstm_testing.conformance import all_checks
from plstm_testing.conformance.lacks import NAMES, NotAskedError, lacks
from plstm_testing.conformance.numpy_adapter import NumpyAdapter

NO_MODULES = {"module_classes": (), "dtypes": ("float64",)}


def adapter(*names: str, **attributes):
    """The reference, which says that it lacks what is named, and has none of the ops among it."""
    ops = {op: function for op, function in NumpyAdapter.ops.items() if op not in names}
    return type("Lacking", (NumpyAdapter,), NO_MODULES | {"ops": ops, "lacks": names} | attributes)()


class Inference(NumpyAdapter):
    """Fails if it is asked for derivatives."""

    dtypes = ("float64",)
    lacks = ("gradients",)

    def run_op(self, call):
        assert call.cotangent is None
        assert call.cotangent_state is None
        return super().run_op(call)

    def run_module(self, call):
        assert call.cotangent is None
        assert not call.directions
        return super().run_module(call)


def outcomes(adapter, *groups):
    """Names of the checks of groups that passed, and of those that were not asked for."""
    passed, not_asked = [], []
    for check in [check for group in groups for check in all_checks(adapter)[group]]:
        try:
            check.run()
        except NotAskedError:
            not_asked.append(check.name)
        else:
            passed.append(check.name)
    return passed, not_asked


def short(adapter, group, part="odd_length"):
    return [check for check in all_checks(adapter)[group] if part in check.name]


def test_a_backend_for_inference_is_never_asked_for_derivatives():
    groups = ("steps", "layouts", "golden_ops")
    passed, not_asked = outcomes(Inference(), *groups)
    assert passed
    assert not not_asked
    for check in [*short(Inference(), "values"), *short(Inference(), "layers", "1d_scalar")]:
        check.run()


def test_gradients_that_are_missing_without_a_word_fail():
    silent = adapter(run_op=lambda self, call: replace(NumpyAdapter().run_op(call), gradients={}))
    (check, *_) = short(silent, "values")
    with pytest.raises(AssertionError, match=r'without gradients says lacks = \("gradients",\)'):
        check.run()


def test_wrong_outputs_fail_whatever_is_lacked():
    wrong = adapter("gradients", run_op=lambda self, call: replace(NumpyAdapter().run_op(call), output=0.0))
    (check, *_) = short(wrong, "values")
    with pytest.raises(AssertionError, match="output"):
        check.run()


@pytest.mark.parametrize(
    ("name", "part"), [("packing", "packed"), ("states", "initial_state"), ("state_tracking", "state_tracking")]
)
def test_calls_that_need_what_is_lacked_are_not_made(name, part):
    checks = [check for check in short(adapter(name), "values", part) if "plstm_1d-auto" in check.name]
    assert checks
    for check in checks:
        with pytest.raises(NotAskedError, match=f"not asked for, since the adapter lacks .*{name}"):
            check.run()


@pytest.mark.parametrize("name", ["packing", "states", "state_tracking"])
def test_what_is_lacked_has_to_be_refused(name):
    checks = all_checks(adapter(name))["refusals"]
    assert checks
    for check in checks:
        with pytest.raises(AssertionError, match=f"expected an error, since the adapter lacks {name} "):
            check.run()


def test_an_error_is_a_refusal():
    def refuse(self, call):
        raise ValueError("cu_seqlens: expected None, got bounds")

    passed, not_asked = outcomes(adapter("packing", run_op=refuse), "refusals")
    assert passed == ["plstm_1d-recurrent-refuses_packing", "plstm_1d-auto-refuses_packing"]
    assert not not_asked


def test_ops_that_are_lacked_are_named_nowhere():
    ops = tuple(op for op in NumpyAdapter.ops if op != "plstm_1d")
    for group, checks in all_checks(adapter(*ops)).items():
        assert all(check.name.startswith(("plstm_1d", "op_1d")) for check in checks), group
        assert not any(check.name.startswith("plstm_1d_step") for check in checks), group


def test_an_op_that_is_neither_there_nor_lacked_fails():
    ops = {name: function for name, function in NumpyAdapter.ops.items() if name != "plstm_graph"}
    (check,) = short(adapter(ops=ops), "signatures", "graph")
    with pytest.raises(AssertionError, match="expected the backend 'numpy' to have this op"):
        check.run()


def test_parameters_that_serve_what_is_lacked_may_be_missing():
    def plstm_1d(
        query, key, value, source, transition, mark, direct, *, scale=None, implementation="auto", chunk_size=None
    ):
        raise AssertionError("its signature is looked at, and it is not called")

    ops = {"plstm_1d": plstm_1d}
    (check, *_) = short(adapter("packing", "states", "plstm_1d_step", ops=ops), "signatures", "plstm_1d")
    check.run()
    (check, *_) = short(adapter("packing", "plstm_1d_step", ops=ops), "signatures", "plstm_1d")
    with pytest.raises(AssertionError, match=r"expected .*initial_state=None"):
        check.run()


def test_errors_are_asked_of_scalars_where_there_is_nothing_else():
    passed, not_asked = outcomes(adapter("state_tracking"), "errors")
    assert "plstm_1d-auto-rank_of_query" in passed
    assert "plstm_2d-auto-initial_state_top" in passed
    assert "plstm_1d-auto-state_tracking_of_mark" in not_asked


@pytest.mark.parametrize("group", ["signatures", "layouts", "errors", "isolation", "long_range"])
def test_groups_that_are_lacked_are_empty(group):
    assert all_checks(adapter())[group]
    assert not all_checks(adapter(group))[group]


def test_modules_without_caches_are_asked_for_their_outputs():
    one = adapter("packing", "states", "files", module_classes=reference.module_classes(), ops={})
    passed, not_asked = outcomes(one, "packed_layers")
    assert not passed
    assert not_asked
    assert not all_checks(one)["files"]


@pytest.mark.parametrize("wrong", [("gradient",), "packing"])
def test_unknown_names_are_refused(wrong):
    with pytest.raises(ValueError, match=r"lacks: expected a sequence of names among \['gradients', .*\], got \["):
        lacks(adapter(lacks=wrong))


@pytest.mark.parametrize("wrong", [None, 5])
def test_what_is_no_sequence_is_refused(wrong):
    with pytest.raises(TypeError, match=f"lacks: expected a sequence of names, got {type(wrong).__name__}"):
        lacks(adapter(lacks=wrong))


def test_an_op_is_there_or_lacked():
    with pytest.raises(ValueError, match=r"lacks: expected ops that are not among .*`ops`, got \['plstm_2d'\]"):
        all_checks(adapter(lacks=("plstm_2d",)))


def test_every_name_says_something():
    assert len(set(NAMES)) == len(NAMES)
    assert set(all_checks(adapter())) >= set(NAMES) - set(NAMES[:4]) - set(NumpyAdapter.ops)
