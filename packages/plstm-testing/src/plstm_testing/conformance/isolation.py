"""What is not finite stays with what depends on it, whatever a fast form multiplies with its masks.

One place of the input is spoilt. Outputs and states that do not depend on it must be those of the reference, outputs
that do must not look finite, and gradients of other rows of the batch, packed sequences and graphs must be right.
Within the spoilt sequence or graph, gradients are free: a cotangent of zero times NaN has no agreed value.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from plstm_config.shapes import PLSTM_1D, PLSTM_GRAPH
from plstm_config.topology import DagTopology

from ..tolerances import assert_close
from . import truth
from .adapter import Adapter, Array, Result
from .cases import SCALAR, STATE_TRACKING, graph, sequence
from .draws import Case

_ROW = 1  # of the batch, or the head, that is spoilt
_HUGE = 1e100  # the way to an overflow, which depends on the order of products
_STATES = {"states": (True, True), "from_zero": (False, True), "output_only": (False, False)}  # initial, last
_BOUNDS = [0, 4, 7, 7, 13]
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
        own: for each argument and the last state, the places [rows, places] whose gradient or value is free.
    """

    case: Case
    own: dict[str, Array]


def spoilt_cases(op: str) -> Iterator[Spoilt]:
    """The cases of an op; none where it has none.

    Args:
        op: name of the op.

    Yields:
        Each of them.
    """
    if op == "plstm_1d":
        yield from _sequences()
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
    _compare_reached(result.output, expected.output, "output")
    if isinstance(expected.last_state, np.ndarray) and isinstance(result.last_state, np.ndarray):
        free = spoilt.own["last_state"]
        assert_close(result.last_state[~free], expected.last_state[~free], "float64", "state", "last_state")
    for name, free in spoilt.own.items():
        if name in expected.gradients:
            found, right = (np.asarray(gradients[name]) for gradients in (result.gradients, expected.gradients))
            assert_close(found[~free], right[~free], "float64", "gradient", f"gradient of {name}")


def _compare_reached(actual: Array, reference: Array, label: str) -> None:
    """Places [rows, places, ...] of ordinary numbers must agree, and no NaN may look finite."""
    with np.errstate(invalid="ignore"):
        whole = (np.abs(reference) < _HUGE).all(axis=tuple(range(2, reference.ndim)))
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


def _spoil(case: Case, names: list[str], steps: slice, value: float = np.nan) -> Spoilt:
    """Spoil steps of one row; its sequence is free, or all of the row if nothing is packed."""
    bounds = [int(bound) for bound in case.keywords.get("cu_seqlens", (0, 13))]
    packed = len(bounds) > 2
    arguments = {name: np.array(array) for name, array in case.arguments.items()}
    for name in names:
        arguments[name][_ROW, steps] = value
    free = np.zeros(arguments["query"].shape[:2], bool)
    sequences = np.zeros((len(free), len(bounds) - 1), bool)
    for number, (start, end) in enumerate(pairwise(bounds)):
        if start <= steps.start < end:
            free[_ROW, start:end] = sequences[_ROW, number] = True
    states = sequences if packed else sequences[:, 0]
    own = dict.fromkeys(PLSTM_1D, free) | {"initial_state": states, "last_state": states}
    return Spoilt(replace(case, arguments=arguments), own)


def _graphs() -> Iterator[Spoilt]:
    for kind, j in (("scalar", None), ("state_tracking", STATE_TRACKING)):
        for states in ("states", "output_only"):
            initial, last = _STATES[states]
            for name in PLSTM_GRAPH:
                case = graph(f"spoilt_{name}_{states}_{kind}", _GRAPHS, j=j, initial=initial, last=last)
                yield _spoil_graph(case, name)


def _spoil_graph(case: Case, name: str) -> Spoilt:
    """Spoil the second place of an argument in one head; its graph is free."""
    arguments: dict[str, Any] = {key: np.array(array) for key, array in case.arguments.items()}
    arguments[name][_ROW, 1] = np.nan
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
    return Spoilt(replace(case, arguments=arguments), own)
