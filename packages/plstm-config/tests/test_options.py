"""Checks of scale, borders, sizes and names."""

import math

import numpy as np
import pytest

from plstm_config import options


def test_scale():
    for scale in (None, 1, 0.5, np.array(0.5), np.float64(2.0)):
        options.check_scale(scale)
    with pytest.raises(TypeError, match="scale: expected None or a number, got str"):
        options.check_scale("big")
    with pytest.raises(ValueError, match=r"scale: expected None or a number, got an array of shape \(2,\)"):
        options.check_scale(np.ones(2))
    for scale in (10**400, -(10**400), math.inf, -math.inf, math.nan, np.float32("nan"), np.array(np.inf)):
        with pytest.raises(ValueError, match=r"^scale: expected a (number that a float holds|finite number), got"):
            options.check_scale(scale)
    for scale in (1j, True, [1.0], np.array(1j), np.array(True), np.array("1"), np.array(None)):
        with pytest.raises(TypeError, match=r"^scale: expected None or a "):
            options.check_scale(scale)


@pytest.mark.parametrize("bounds", [[0, 16], [0, 0, 5, 5, 16, 16], (0, 7, 16), np.array([0, 3, 16], np.int32)])
def test_cu_seqlens_that_pass(bounds):
    assert options.check_cu_seqlens(bounds, 16) == tuple(int(bound) for bound in bounds)


@pytest.mark.parametrize(
    ("bounds", "error", "message"),
    [
        ([1, 16], ValueError, r"first boundary to be 0, got \[1, 16\]"),
        ([0, 15], ValueError, r"last boundary to be T=16, got \[0, 15\]"),
        ([0, 9, 4, 16], ValueError, r"boundaries that do not decrease, got \[0, 9, 4, 16\]"),
        ([0, -3, 16], ValueError, r"non-negative boundaries, got \[0, -3, 16\]"),
        ([0.0, 16.0], TypeError, "integers, got 0.0 of type float"),
        ([False, 16], TypeError, "integers, got False of type bool"),
        (np.array([[0, 16]]), ValueError, r"\[S\+1\] with S >= 1, got \(1, 2\)"),
        ([0], ValueError, r"\[S\+1\] with S >= 1, got \(1,\)"),
        (np.array(16), ValueError, r"\[S\+1\] with S >= 1, got \(\)"),
        (16, TypeError, r"an integer array of shape \[S\+1\], got int"),
    ],
)
def test_cu_seqlens_that_fail(bounds, error, message):
    with pytest.raises(error, match=rf"^cu_seqlens: expected .*{message}"):
        options.check_cu_seqlens(bounds, 16)


def test_cu_seqlens_shape():
    with pytest.raises(TypeError, match="cu_seqlens: expected an integer array"):
        options.check_cu_seqlens_shape([0, 16])
    with pytest.raises(ValueError, match=r"cu_seqlens: expected \[S\+1\]"):
        options.check_cu_seqlens_shape(np.zeros((2, 2), int))


def test_unknown_implementation_lists_the_valid_ones():
    assert options.check_implementation("recurrent", ("recurrent", "auto")) == "recurrent"
    with pytest.raises(ValueError, match="implementation: expected one of 'recurrent', 'auto', got 'fast'"):
        options.check_implementation("fast", ("recurrent", "auto"))


def test_sizes_of_chunks():
    options.check_size("chunk_size", None)
    options.check_size("chunk_size", 1)
    with pytest.raises(ValueError, match="chunk_size: expected None or a positive integer, got 0"):
        options.check_size("chunk_size", 0)
    with pytest.raises(TypeError, match="block_size: expected None or a positive integer, got float"):
        options.check_size("block_size", 8.0)
