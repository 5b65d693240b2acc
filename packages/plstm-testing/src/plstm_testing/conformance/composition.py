"""A sequence in pieces equals the whole, a grid in tiles equals the full pass."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from plstm_config.shapes import PLSTM_1D, PLSTM_2D

from ..tolerances import assert_close
from . import truth
from .adapter import Adapter, Array, OpCall, Result
from .cases import cases
from .draws import Case


@dataclass(frozen=True)
class Cut:
    """How to cut the cases of one op.

    Attributes:
        cases: names of the cases to cut.
        check: compares the composed result with the reference's full pass.
    """

    cases: tuple[str, ...]
    check: Callable[[Adapter, str, str], None]


def check_pieces(adapter: Adapter, name: str, implementation: str) -> None:
    """Feed a sequence piece by piece, each starting from the state the last one left."""
    whole = _forward_call(adapter, "plstm_1d", name, implementation)
    length = whole.arguments["query"].shape[1]
    cuts = [0, 1, length // 3, length // 2, length // 2, length]
    state, outputs = whole.arguments["initial_state"], []
    for start, end in pairwise(cuts):
        arguments = {argument: whole.arguments[argument][:, start:end] for argument in PLSTM_1D}
        result = adapter.run_op(replace(whole, arguments=arguments | {"initial_state": state}))
        outputs.append(result.output)
        state = result.last_state
    expected = truth.expected("plstm_1d", name, whole.dtype)
    assert_close(np.concatenate(outputs, axis=1), expected.output, whole.dtype, "output", "output of the pieces")
    assert_close(state, expected.last_state, whole.dtype, "state", "last state of the pieces")  # type: ignore[arg-type]


def check_tiles(adapter: Adapter, name: str, implementation: str) -> None:
    """Run a grid tile by tile: what leaves a tile on the right and at the bottom enters its neighbours."""
    whole = _forward_call(adapter, "plstm_2d", name, implementation)
    columns, rows = whole.arguments["query"].shape[1:3]
    expected = truth.expected("plstm_2d", name, whole.dtype)
    output = np.zeros_like(expected.output)
    left, top = (state.copy() for state in whole.arguments["initial_state"])  # overwritten as the tiles proceed
    for x in pairwise([0, columns // 3, columns]):
        for y in pairwise([0, rows // 2, rows - 1, rows]):
            result = _run_tile(adapter, whole, x, y, left, top)
            output[:, slice(*x), slice(*y)] = result.output
            left[:, slice(*y)], top[:, slice(*x)] = result.last_state  # type: ignore[misc]
    assert_close(output, expected.output, whole.dtype, "output", "output of the tiles")
    for side, state, reference in zip(("right", "bottom"), (left, top), expected.last_state or (), strict=True):
        assert_close(state, reference, whole.dtype, "state", f"{side} state of the tiles")


def _run_tile(
    adapter: Adapter, whole: OpCall, x: tuple[int, int], y: tuple[int, int], left: Array, top: Array
) -> Result:
    arguments: dict[str, Any] = {}
    for argument in PLSTM_2D:
        if argument not in whole.same:
            array = whole.arguments.get(argument)
            arguments[argument] = None if array is None else array[:, slice(*x), slice(*y)]
    arguments["initial_state"] = (left[:, slice(*y)].copy(), top[:, slice(*x)].copy())
    return adapter.run_op(replace(whole, arguments=arguments))


def _forward_call(adapter: Adapter, op: str, name: str, implementation: str) -> OpCall:
    (case,) = (case for case in cases(op) if case.name == name)
    forward: Case = replace(case, cotangent=None, cotangent_state=None)
    return truth.call(forward, implementation, "float64", adapter.devices[0])


CUTS: Mapping[str, Cut] = {
    "plstm_1d": Cut(("default_chunk", "special_gates", "state_tracking"), check_pieces),
    "plstm_2d": Cut(
        tuple(f"{mode}_{kind}" for mode in ("full", "L", "R", "P", "apart") for kind in ("odd_sides", "default_block")),
        check_tiles,
    ),
}
