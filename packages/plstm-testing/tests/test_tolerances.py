"""The error measure and its table."""

import numpy as np
import pytest

from plstm_testing import tolerances


def test_error_is_relative():
    reference = np.array([3.0, 4.0])
    assert tolerances.rms_error(reference * 1.01, reference) == pytest.approx(0.01)
    assert tolerances.rms_error(1e-30 * reference * 1.01, 1e-30 * reference) == pytest.approx(0.01)


def test_zero_reference_is_compared_absolutely():
    assert tolerances.rms_error([0.3, 0.4], [0.0, 0.0]) == pytest.approx(np.sqrt(0.125))
    assert tolerances.rms_error([0.0], [0.0]) == 0.0
    assert tolerances.rms_error(np.zeros((0, 3)), np.zeros((0, 3))) == 0.0


def test_shapes_are_not_broadcast():
    with pytest.raises(ValueError, match=r"actual: expected the shape of reference, \(2, 1\), got \(2,\)"):
        tolerances.rms_error(np.zeros(2), np.zeros((2, 1)))
    with pytest.raises(AssertionError, match=r"thing .*: expected shape \(2, 1\), got \(1, 2\)"):
        tolerances.assert_close(np.zeros((1, 2)), np.zeros((2, 1)), label="thing")


@pytest.mark.parametrize("dtype", tolerances.TOLERANCES)
@pytest.mark.parametrize("kind", ["output", "state", "gradient"])
def test_table_decides(dtype, kind):
    limit = tolerances.tolerance(dtype, kind)
    reference = np.ones(7)
    tolerances.assert_close(reference * (1 + 0.9 * limit), reference, dtype, kind)
    with pytest.raises(AssertionError, match=rf"here \[{kind}, {dtype}\]: relative RMS error .* exceeds"):
        tolerances.assert_close(reference * (1 + 1.1 * limit), reference, dtype, kind, "here")


def test_coarser_dtypes_have_wider_tolerances():
    for kind in ("output", "state", "gradient"):
        ordered = [tolerances.tolerance(dtype, kind) for dtype in ("float64", "float32", "float16", "bfloat16")]
        assert ordered == sorted(ordered)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nothing_finite_excuses_nan(bad):
    with pytest.raises(AssertionError, match="exceeds"), np.errstate(invalid="ignore"):
        tolerances.assert_close([1.0, bad], [1.0, 1.0], "bfloat16")


def test_names_of_dtypes():
    assert tolerances.tolerance(np.dtype(np.float32)) == tolerances.tolerance("framework.float32")
    with pytest.raises(ValueError, match=r"dtype: expected one of .*, got 'int8'"):
        tolerances.tolerance("int8")
    with pytest.raises(ValueError, match=r"kind: expected one of .*, got 'loss'"):
        tolerances.tolerance("float32", "loss")
