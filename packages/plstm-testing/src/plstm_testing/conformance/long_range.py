"""Signals over long paths: bounded where the paper says so, decaying as it says, with finite gradients."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..tolerances import assert_close, rms, tolerance
from . import truth
from .adapter import Adapter, Array, OpCall, Result

# Columns, rows, and the share of the signal that goes down at each cell: with a small share the whole bundle of paths
# stays in a narrow grid. Forms that walk cell by cell or keep every pair of cells get a shorter path, same law.
GRIDS = {"recurrent": (192, 28, 0.05), "parallel": (64, 24, 0.1)}
FULL_GRID = (4096, 56, 0.005)
LENGTHS = {"recurrent": 2048}
FULL_LENGTH = 16_384


def check_propagation_decay(adapter: Adapter, implementation: str) -> None:
    """P-mode at |T| = 1: one source spreads as the binomial distribution, peak ~ (path length)**-0.5, sum at most 1."""
    columns, rows, down = GRIDS.get(implementation, FULL_GRID)
    shape = (1, columns, rows)
    arguments = _impulse(shape, 1.0 - down, down)
    arguments |= {"transition_rl": np.full((*shape, 1, 1), 1.0 - down), "transition_du": np.full((*shape, 1, 1), down)}
    response = _response(adapter, implementation, arguments, mode="P")
    exact = _binomial(columns, rows, down)
    assert_close(response, exact, "float64", "output", "response to one source")
    for column in (columns // 4, columns - 1):
        # every path that reaches this column entered it from the left exactly once
        arrived = (1.0 - down) * response[column - 1].sum()
        if not arrived <= 1.0 + tolerance("float64", "output"):
            raise AssertionError(f"column {column}: expected a signal of at most 1 in all, got {arrived}")
    quarter, whole = response[columns // 4].max(), response[columns - 1].max()
    decay = math.log(quarter / whole) / math.log((columns - 1) / (columns // 4))
    if not 0.4 <= decay <= 0.6:
        raise AssertionError(f"expected a decay of length**-0.5 along the line, got length**-{decay:.3f}")


def check_distribution_magnitude(adapter: Adapter, implementation: str) -> None:
    """D-mode at |T| = 1: one source reaches every cell at magnitude one."""
    columns, rows, _ = GRIDS.get(implementation, FULL_GRID)
    shape = (1, columns, rows)
    one = np.ones((*shape, 1, 1))
    arguments = _impulse(shape, 1.0, 1.0)
    arguments |= {"transition_rl": one, "transition_du": one, "transition_ru": one, "transition_dl": None}
    arguments["mark_u"] = np.ones((*shape, 1, 1, 1))
    response = _response(adapter, implementation, arguments)
    expected = np.ones((columns, rows))
    expected[0, 0] = 0.0  # the source itself is read through the direct term only
    assert_close(response, expected, "float64", "output", "response to one source")


def check_long_sequence(adapter: Adapter, implementation: str) -> None:
    """|T| = 1 over a long sequence in the coarsest dtype: finite and right, gradients too."""
    dtype = "bfloat16" if "bfloat16" in adapter.dtypes else adapter.dtypes[-1]
    random = np.random.default_rng(0)
    length = LENGTHS.get(implementation, FULL_LENGTH)
    shape = (1, length)
    drawn = {
        "query": random.standard_normal((*shape, 2, 1)),
        "key": random.standard_normal((*shape, 2, 1)),
        "value": random.standard_normal((*shape, 2, 1)),
        "source": random.standard_normal((*shape, 1, 1, 1)) / math.sqrt(length),
        "transition": random.choice([-1.0, 1.0], (*shape, 1, 1)),
        "mark": random.standard_normal((*shape, 1, 1, 1)),
        "direct": random.standard_normal((*shape, 1, 1, 1, 1)),
    }
    call = OpCall(
        op="plstm_1d",
        arguments={name: truth.round_to(array, dtype) for name, array in drawn.items()},
        keywords={"implementation": implementation, "return_last_state": True},
        cotangent=truth.round_to(random.standard_normal((*shape, 2, 1)), dtype),
        cotangent_state=truth.round_to(random.standard_normal((1, 2, 2, 1)), "float32"),
        dtype=dtype,
        device=adapter.devices[0],
    )
    result = adapter.run_op(call)
    for name, gradient in result.gradients.items():
        if not np.all(np.isfinite(np.asarray(gradient))):
            raise AssertionError(f"gradient of {name}: expected finite entries at length {length}")
    expected = _long_truth(dtype, length, call)
    assert_close(result.output, expected.output, dtype, "output", "output")
    for name, gradient in expected.gradients.items() if result.has_gradients else ():
        assert_close(result.gradients[name], gradient, dtype, "gradient", f"gradient of {name}")  # type: ignore[arg-type]


_long_truths: dict[tuple[str, int], Result] = {}


def _long_truth(dtype: str, length: int, call: OpCall) -> Result:
    if (dtype, length) not in _long_truths:
        _long_truths[dtype, length] = truth.evaluate(call)
    return _long_truths[dtype, length]


def _impulse(shape: tuple[int, int, int], right: float, down: float) -> dict[str, Any]:
    """A single source in the corner, everything read with weight one."""
    source_r, source_d = np.zeros((*shape, 1, 1, 1)), np.zeros((*shape, 1, 1, 1))
    source_r[:, 0, 0], source_d[:, 0, 0] = right, down
    one = np.ones((*shape, 1, 1))
    return {
        "query": one,
        "key": one,
        "value": one,
        "source_r": source_r,
        "source_d": source_d,
        "mark_l": np.ones((*shape, 1, 1, 1)),
        "direct": np.zeros((*shape, 1, 1, 1, 1)),
    }


def _response(adapter: Adapter, implementation: str, arguments: dict[str, Any], **keywords: Any) -> Array:
    keywords |= {"implementation": implementation, "scale": 1.0, "return_last_state": True}
    result = adapter.run_op(OpCall("plstm_2d", arguments, keywords=keywords, device=adapter.devices[0]))
    for side, state in zip(("right", "bottom"), result.last_state or (), strict=True):
        if not (np.all(np.isfinite(state)) and rms(state) <= 1.0):
            raise AssertionError(f"{side} state: expected entries of at most one, got RMS {rms(state)}")
    return np.asarray(result.output)[0, :, :, 0, 0]


def _binomial(columns: int, rows: int, down: float) -> Array:
    """Probability that a walk which goes down with probability `down` passes a cell, by its own recursion."""
    passed = [[0.0] * rows for _ in range(columns)]
    for x in range(columns):
        for y in range(rows):
            from_left = (1.0 - down) * passed[x - 1][y] if x > 0 else 0.0
            from_above = down * passed[x][y - 1] if y > 0 else 0.0
            passed[x][y] = 1.0 if x == y == 0 else from_left + from_above
    result = np.array(passed)
    result[0, 0] = 0.0  # the source itself is read through the direct term only
    return result


CHECKS: Mapping[str, Mapping[str, Callable[[Adapter, str], None]]] = {
    "plstm_1d": {"long_sequence": check_long_sequence},
    "plstm_2d": {
        "propagation_decay": check_propagation_decay,
        "distribution_magnitude": check_distribution_magnitude,
    },
}
