"""What is not finite stays with what depends on it, whatever a fast form multiplies with its masks.

One place of the input is spoilt. Outputs and states that do not depend on it must be those of the reference, outputs
that do must not look finite, and gradients of other rows of the batch, packed sequences and graphs must be right. The
cotangent of the output may be what is spoilt: then all numbers are right, and so are those gradients.
Where products of finite numbers overflow on a grid, its results depend on the order of products, but on no other grid.
Within the spoilt sequence, grid or graph, gradients are free: a cotangent of zero times NaN has no agreed value.
Free is also what a transition or mark of infinity makes of the zero state that everything starts with: loops that
multiply give NaN, forms that know it to be zero nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from plstm_config.shapes import PLSTM_1D, PLSTM_2D, PLSTM_GRAPH
from plstm_config.topology import DagTopology

from ..tolerances import assert_close
from . import truth
from .adapter import Adapter, Array, Result, Value
from .cases import MODES, SCALAR, STATE_TRACKING, graph, grid, sequence
from .draws import Case

_GATES = ("source", "transition", "mark")
_OVERFLOWING = 1e200
_ROW = 1  # of the batch, or the head, that is spoilt
_HUGE = 1e100  # the way to an overflow, which depends on the order of products
_STATES = {"states": (True, True), "from_zero": (False, True), "output_only": (False, False)}  # initial, last
_COTANGENT = "cotangent"
_BOUNDS = [0, 4, 7, 7, 13]
_SIDES = (5, 7)  # no multiples of the block
_PLACE = (2, 3)
_FIRST = 5  # nodes of the first graph, which is spoilt
_GRAPHS = DagTopology.batch(
    [
        DagTopology.from_edges(_FIRST, [(0, 1), (1, 2), (0, 2), (2, 3), (4, 3)]),
        DagTopology.from_edges(4, [(0, 1), (1, 2), (0, 2)]),
    ]
)


@dataclass(frozen=True)
class Spoilt:
    """A case with a place that is not finite.

    Attributes:
        case: the arguments.
        own: for each argument, the places [rows, ...] whose gradient is free, and those of the last state that are.
        lost: rows of the batch of which nothing is compared.
        also_right: the case whose results are as right as those of `case`: the one with zero in a place that only
            multiplies the zero state that everything starts with.
    """

    case: Case
    own: dict[str, Array]
    lost: Array = field(default_factory=lambda: np.zeros(0, int))
    also_right: Case | None = None


def spoilt_cases(op: str) -> Iterator[Spoilt]:
    """The cases of an op; none where it has none.

    Args:
        op: name of the op.

    Yields:
        Each of them.
    """
    if op == "plstm_1d":
        yield from _sequences()
    elif op in ("plstm_2d", "plstm_2d_oriented"):
        yield from _grids(oriented=op == "plstm_2d_oriented")
    elif op == "plstm_graph":
        yield from _graphs()


def check_isolation(adapter: Adapter, spoilt: Spoilt, implementation: str) -> None:
    """Compare everything that the spoilt place does not reach.

    Args:
        adapter: the backend.
        spoilt: the case.
        implementation: implementation under test.

    Raises:
        AssertionError: on the first disagreement.
    """
    call = truth.call(spoilt.case, implementation, "float64", adapter.devices[0])
    with np.errstate(all="ignore"):
        expected = truth.evaluate(call)
        result: Result = adapter.run_op(call)
    try:
        _compare(result, expected, spoilt)
    except AssertionError:
        if spoilt.also_right is None:
            raise
        _compare(result, truth.evaluate(replace(call, arguments=spoilt.also_right.arguments)), spoilt)


def _compare(result: Result, expected: Result, spoilt: Spoilt) -> None:
    leading = 3 if spoilt.case.op.startswith("plstm_2d") else 2
    _compare_reached(result.output, expected.output, leading, "output", spoilt.lost)
    if isinstance(expected.last_state, tuple) and isinstance(result.last_state, tuple):
        for side, found, right in zip(("right", "bottom"), result.last_state, expected.last_state, strict=True):
            _compare_reached(found, right, right.ndim - 3, side, spoilt.lost)
    if isinstance(expected.last_state, np.ndarray) and isinstance(result.last_state, np.ndarray):
        free = spoilt.own["last_state"]
        assert_close(result.last_state[~free], expected.last_state[~free], "float64", "state", "last_state")
    for name, free in spoilt.own.items():
        if result.has_gradients and name in expected.gradients:
            both = (_parts(gradients[name]) for gradients in (result.gradients, expected.gradients))
            for found, right in zip(*both, strict=True):
                assert_close(found[~free], right[~free], "float64", "gradient", f"gradient of {name}")


def _parts(value: Value) -> tuple[Array, ...]:
    return value if isinstance(value, tuple) else (value,)


def _compare_reached(actual: Array, reference: Array, leading: int, label: str, lost: Array) -> None:
    """Places, in as many leading axes, of ordinary numbers must agree, and no NaN may look finite."""
    actual, reference = (np.delete(array, lost, 0) for array in (actual, reference))
    with np.errstate(invalid="ignore"):
        whole = (np.abs(reference) < _HUGE).all(axis=tuple(range(leading, reference.ndim)))
    assert_close(actual[whole], reference[whole], "float64", "output", label)
    hidden = np.isfinite(actual) & np.isnan(reference)
    if hidden.any():
        raise AssertionError(f"{label}: expected no finite number at {np.argwhere(hidden)[0].tolist()}, got one")


def _sequences() -> Iterator[Spoilt]:
    for kind, j in (("scalar", SCALAR), ("state_tracking", STATE_TRACKING)):
        for name in PLSTM_1D:
            yield _spoil(sequence(f"spoilt_{name}_{kind}", 13, j, initial=True, chunk_size=4), [name], slice(6, 7))
        for states, (initial, last) in _STATES.items():
            options: dict[str, Any] = {"bounds": _BOUNDS, "chunk_size": 4, "initial": initial, "last": last}
            case = sequence(f"spoilt_packed_{states}_{kind}", 13, j, **options)
            yield _spoil(case, list(PLSTM_1D), slice(5, 6))
            case = sequence(f"overflowing_packed_{states}_{kind}", 13, j, **options)
            yield _spoil(case, ["transition"], slice(4, 7), 1e200)
            case = sequence(f"spoilt_cotangent_packed_{states}_{kind}", 13, j, **options)
            yield _spoil(case, [_COTANGENT], slice(5, 6))


def _spoil(case: Case, names: list[str], steps: slice, value: float = np.nan) -> Spoilt:
    """Spoil steps of one row; its sequence is free, or all of the row if nothing is packed."""
    bounds = [int(bound) for bound in case.keywords.get("cu_seqlens", (0, 13))]
    packed = len(bounds) > 2
    arrays = _copies(case)
    for name in names:
        arrays[name][_ROW, steps] = value
    free = np.zeros(arrays["query"].shape[:2], bool)
    sequences = np.zeros((len(free), len(bounds) - 1), bool)
    for number, (start, end) in enumerate(pairwise(bounds)):
        if start <= steps.start < end:
            free[_ROW, start:end] = sequences[_ROW, number] = True
    states = sequences if packed else sequences[:, 0]
    own = dict.fromkeys(PLSTM_1D, free) | {"initial_state": states, "last_state": states}
    return Spoilt(_with(case, arrays), own)


def _copies(case: Case) -> dict[str, Any]:
    """Arguments and cotangent of a case by name, to be spoilt; what is no array stays out."""
    arrays = {name: np.array(array) for name, array in case.arguments.items() if isinstance(array, np.ndarray)}
    return arrays | {_COTANGENT: np.array(case.cotangent)}


def _with(case: Case, arrays: dict[str, Any]) -> Case:
    """The case with other arguments and another cotangent."""
    cotangent = arrays.pop(_COTANGENT)
    return replace(case, arguments={**case.arguments, **arrays}, cotangent=cotangent)


def _grids(oriented: bool) -> Iterator[Spoilt]:
    for mode in ("P", "L", "R") if oriented else MODES:
        for states, (initial, last) in _STATES.items():
            yield _spoil_grid(f"spoilt_{states}_{mode}", mode, initial=initial, last=last, oriented=oriented)
        yield _spoil_grid(f"spoilt_state_tracking_{mode}", mode, j=STATE_TRACKING, initial=True, oriented=oriented)


def _spoil_grid(name: str, mode: str, *, initial: bool, oriented: bool, **options: Any) -> Spoilt:
    """Spoil one place of one argument in each row of the batch but the first; the gradients of these rows are free."""
    rows: list[tuple[str, float]] = [(argument, np.nan) for argument in (*PLSTM_2D, _COTANGENT)]
    rows += [("key", np.inf), ("transition_rl", _OVERFLOWING)]
    sides = ("left", "top") if initial else ()
    batch = 1 + len(rows) + len(sides)
    options |= {"initial": initial, "oriented": oriented, "block_size": 3, "batch": batch}
    case = grid(name, *_SIDES, mode, **options)
    arrays = _copies(case)
    for row, (argument, value) in enumerate(rows, 1):
        if argument in arrays:
            place = (slice(None), *_PLACE) if oriented and argument.startswith(_GATES) else _PLACE
            _spoil_place(arrays[argument][row], place, value)
    if initial:
        state = [np.array(side) for side in case.arguments["initial_state"]]
        for row, side, along in zip((-2, -1), state, _PLACE[::-1], strict=True):
            side[row, ..., along, :, :, :] = np.nan
        arrays["initial_state"] = tuple(state)
    spoilt = np.arange(batch) > 0
    own = dict.fromkeys((*PLSTM_2D, "initial_state"), spoilt)
    lost = np.flatnonzero([False, *(value == _OVERFLOWING for _, value in rows)])
    return Spoilt(_with(case, arrays), own, lost)


def _spoil_place(array: Array, place: tuple[slice | int, ...], value: float) -> None:
    """Write a value into a place of one row, or let it and its neighbour to the right multiply beyond any number."""
    if value == _OVERFLOWING:
        array[place] *= value
        place = (*place[:-2], place[-2] + 1, place[-1])  # type: ignore[operator]
        array[place] *= value
    else:
        array[place] = value


def _graphs() -> Iterator[Spoilt]:
    for kind, j in (("scalar", None), ("state_tracking", STATE_TRACKING)):
        for states in ("states", "output_only"):
            initial, last = _STATES[states]
            for name in (*PLSTM_GRAPH, _COTANGENT):
                case = graph(f"spoilt_{name}_{states}_{kind}", _GRAPHS, j=j, initial=initial, last=last)
                yield _spoil_graph(case, name)


def _spoil_graph(case: Case, name: str) -> Spoilt:
    """Spoil the second place of an argument in one head; its graph is free."""
    arrays = _copies(case)
    arrays[name][_ROW, 1] = np.nan
    first_nodes = np.arange(_GRAPHS.num_nodes) < _FIRST
    first_edges = first_nodes[_GRAPHS.edges[:, 0]]
    first_lines = first_edges[_GRAPHS.line_edges[:, 0]]
    places = {"source": first_edges, "transition": first_lines, "mark": first_edges}
    places |= {"initial_state": first_edges, "last_state": first_edges}
    own = {}
    for key in (*PLSTM_GRAPH, "initial_state", "last_state"):
        first = places.get(key, first_nodes)
        own[key] = np.zeros((2, len(first)), bool)
        own[key][_ROW] = first
    return Spoilt(_with(case, arrays), own)
