"""Whom something that is not finite reaches on a grid, as the walk from all corners would have it."""

from array import array
from math import inf, isnan, nan

import pytest

import plstm_native

pytestmark = pytest.mark.skipif(plstm_native.unavailable() is not None, reason=f"{plstm_native.unavailable()}")
X, Y = 3, 4
BOTH = {(2, 1), (2, 2), (2, 3), (1, 2), (1, 3)}  # right of and below (1, 1)
REACHED = {
    "P": BOTH,
    "general": BOTH,
    "straight": {(2, 1), (1, 2), (1, 3)},
    "L": {(2, 1), (1, 2), (1, 3), (2, 2), (2, 3)},  # what goes down may turn right
    "R": {(2, 1), (1, 2), (1, 3), (2, 2), (2, 3)},
}


def marks(mode, spoilt, flips=((False, False),)):
    """Nodes that are marked; `spoilt` says which number of which array is what."""
    sizes = plstm_native.GridSizes(dtype="float64", batch=1, flips=flips, x=X, y=Y, dk=5, dv=3, mode=mode, threads=1)
    each = {"key": 5, "value": 3, "direct": 1} | dict.fromkeys(plstm_native.gates_of(mode), len(flips))
    arrays = {name: array("d", [0.0] * X * Y * size) for name, size in each.items()}
    for name, place, number in spoilt:
        arrays[name][place] = number
    arrays["marks"] = array("d", [7.0] * X * Y)
    plstm_native.grid_marks(sizes, {name: values.buffer_info()[0] for name, values in arrays.items()})
    assert all(isnan(mark) or mark == 1 for mark in arrays["marks"])
    return {divmod(place, Y) for place, mark in enumerate(arrays["marks"]) if isnan(mark)}


@pytest.mark.parametrize("mode", list(REACHED))
def test_a_walk_leads_it_on(mode):
    node = 1 * Y + 1
    assert marks(mode, []) == set()
    for name, place in (("key", node * 5 + 4), ("value", node * 3 + 1)):
        for number in (nan, inf, -inf):
            assert marks(mode, [(name, place, number)]) == REACHED[mode] | {(1, 1)}
    assert marks(mode, [("direct", node, nan)]) == marks(mode, [("mark_l", node, inf)]) == {(1, 1)}
    assert marks(mode, [("source_r", node, nan)]) <= REACHED[mode]


def test_every_orientation_walks_its_own_way():
    flips = tuple((bool(o & 1), bool(o & 2)) for o in range(4))
    everything = {(x, y) for x in range(X) for y in range(Y)}
    assert marks("P", [("key", (1 * Y + 1) * 5, nan)], flips) == everything
    backwards = 3 * X * Y  # the last orientation
    assert marks("P", [("transition_rl", backwards + 1 * Y + 1, inf)], flips) == {(0, 1), (0, 0)}
