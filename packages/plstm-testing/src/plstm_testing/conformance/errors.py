"""Bad input: every op refuses it with an error that names the argument, what was expected and what came."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from plstm_config.shapes import DIRECTED, PLSTM_1D, PLSTM_2D, PLSTM_2D_ORIENTED, PLSTM_GRAPH

from . import truth
from .adapter import Adapter
from .cases import STATE_TRACKING, graph, grid, sequence, topology
from .draws import Case
from .lacks import NotAskedError

LAYOUTS = {
    "plstm_1d": PLSTM_1D,
    "plstm_2d": PLSTM_2D,
    "plstm_2d_oriented": PLSTM_2D_ORIENTED,
    "plstm_graph": PLSTM_GRAPH,
}


@dataclass(frozen=True)
class ErrorCase:
    """A call that must fail.

    Attributes:
        name: name of the case.
        case: the arguments, one of them wrong.
        error: expected exception type.
        message: regular expression that the message must contain.
        implementation: overrides the implementation under test.
    """

    name: str
    case: Case
    error: type[Exception]
    message: str
    implementation: str | None = None


def check_error(adapter: Adapter, case: ErrorCase, implementation: str) -> None:
    """The call raises the expected error.

    Args:
        adapter: the backend.
        case: the bad call.
        implementation: implementation under test.

    Raises:
        AssertionError: if the call succeeds, or fails in another way.
    """
    call = truth.call(case.case, case.implementation or implementation, "float32", adapter.devices[0])
    try:
        adapter.run_op(call)
    except NotAskedError:
        raise
    except Exception as error:
        if type(error) is not case.error or not re.search(case.message, str(error)):
            raise AssertionError(
                f"expected {case.error.__name__} with /{case.message}/, got {type(error).__name__}: {error}"
            ) from error
        return
    raise AssertionError(f"expected {case.error.__name__} with /{case.message}/, got a result")


def error_cases(op: str, j: tuple[int, ...] = STATE_TRACKING) -> Iterator[ErrorCase]:
    """Bad calls of an op.

    Args:
        op: name of the op.
        j: JQ, JK, JV, JT, JO of sequences and grids.

    Yields:
        Each of them.
    """
    good = _good(op, j)
    for name in LAYOUTS[op]:
        array = good.arguments[name]
        fewer = _with(good, **{name: array[..., 0]})
        # the reference form of a graph op reads a query with one dimension more or less as another form
        named = "query|key" if op == "plstm_graph" and name == "query" else re.escape(name)
        yield ErrorCase(f"rank_of_{name}", fewer, ValueError, rf"^({named}): expected \[.*\], got \(")
        yield ErrorCase(f"list_as_{name}", _with(good, **{name: [1.0]}), TypeError, rf"^{name}: expected .*, got list")
        if name != "query":
            longer = _with(good, **{name: np.repeat(array, 2, axis=1)})
            yield ErrorCase(f"length_of_{name}", longer, ValueError, rf"^{name}: expected \[.*=.*\], got \(")
    if op != "plstm_graph":
        yield from _state_tracking_errors(good)
    yield from _option_errors(op, good)
    yield from {"plstm_1d": _packing_errors, "plstm_graph": _graph_errors}.get(op, _border_errors)(good)


def _good(op: str, j: tuple[int, ...]) -> Case:
    if op == "plstm_1d":
        case = sequence("good", 6, j, initial=True)
    elif op == "plstm_graph":
        case = graph("good", topology(4, [(0, 1), (1, 2), (0, 2), (2, 3)]), initial=True)
    else:
        case = grid("good", 3, 4, "full", j, oriented=op == "plstm_2d_oriented", initial=True)
    return replace(case, cotangent=None, cotangent_state=None)


def _with(case: Case, **arguments: Any) -> Case:
    return replace(case, arguments={**case.arguments, **arguments})


def _option(case: Case, **keywords: Any) -> Case:
    return replace(case, keywords={**case.keywords, **keywords})


def _state_tracking_errors(good: Case) -> Iterator[ErrorCase]:
    """One state-tracking dimension of one gate disagrees with the others."""
    for name in [name for name in LAYOUTS[good.op] if name.startswith(("transition", "mark", "direct"))]:
        array = good.arguments[name]
        more = np.concatenate([array, array[..., :1]], axis=-1)
        yield ErrorCase(f"state_tracking_of_{name}", _with(good, **{name: more}), ValueError, rf"^{name}: expected .*J")


def _option_errors(op: str, good: Case) -> Iterator[ErrorCase]:
    unknown = r"^implementation: expected one of .*'recurrent'.*, got 'quickest'"
    yield ErrorCase("unknown_implementation", good, ValueError, unknown, implementation="quickest")
    yield ErrorCase(
        "scale_as_text", _option(good, scale="big"), TypeError, "^scale: expected None or a number, got str"
    )
    wrong_scales = {
        "complex": (1j, TypeError, "None or a number, got complex"),
        "infinite": (float("inf"), ValueError, "a finite number, got inf"),
        "no_number": (float("nan"), ValueError, "a finite number, got nan"),
        "beyond_floats": (10**400, ValueError, "a number that a float holds"),
    }
    for name, (scale, error, message) in wrong_scales.items():
        yield ErrorCase(f"scale_{name}", _option(good, scale=scale), error, f"^scale: expected {message}")
    size = {"plstm_1d": "chunk_size", "plstm_2d": "block_size", "plstm_2d_oriented": "block_size"}.get(op)
    if size is not None:
        positive = f"^{size}: expected None or a positive integer, got "
        yield ErrorCase(f"{size}_of_zero", _option(good, **{size: 0}), ValueError, positive + "0")
        yield ErrorCase(f"{size}_as_fraction", _option(good, **{size: 4.0}), TypeError, positive + "float")


def _packing_errors(good: Case) -> Iterator[ErrorCase]:
    state = good.arguments["initial_state"]
    short, last = _with(good, initial_state=state[..., :-1]), rf"JT={state.shape[-1]}\]"
    yield ErrorCase("initial_state", short, ValueError, rf"^initial_state: expected \[.*{last}")
    packed = {"cu_seqlens": np.array([0, 2, 6])}
    yield ErrorCase("unpacked_state", _option(good, **packed), ValueError, r"^initial_state: expected \[.*S=2.*\], got")
    free = replace(good, arguments={n: a for n, a in good.arguments.items() if n != "initial_state"})
    bad = {
        "starting_late": ([1, 6], "first boundary to be 0"),
        "ending_early": ([0, 5], "last boundary to be T=6"),
        "ending_late": ([0, 3, 7], "last boundary to be T=6"),
        "decreasing": ([0, 4, 2, 6], "boundaries that do not decrease"),
        "negative": ([0, -2, 6], "non-negative boundaries"),
        "single": ([0], r"\[S\+1\] with S >= 1"),
        "of_rank_two": ([[0, 6]], r"\[S\+1\] with S >= 1"),
    }
    for name, (bounds, message) in bad.items():
        case = _option(free, cu_seqlens=np.array(bounds))
        yield ErrorCase(f"cu_seqlens_{name}", case, ValueError, f"^cu_seqlens: expected .*{message}")
    fraction = _option(free, cu_seqlens=np.array([0.0, 6.0]))
    yield ErrorCase("cu_seqlens_of_fractions", fraction, TypeError, "^cu_seqlens: expected integers, got 0.0")


def _border_errors(good: Case) -> Iterator[ErrorCase]:
    left, top = good.arguments["initial_state"]
    pair = r"^initial_state: expected the pair \(left, top\)"
    yield ErrorCase("initial_state_alone", _with(good, initial_state=left), TypeError, pair)
    swapped = r"^initial_state\[0\] \(left\): expected \[.*Y=4.*\], got"
    yield ErrorCase("initial_state_swapped", _with(good, initial_state=(top, left)), ValueError, swapped)
    short = (left, top[..., :-1])
    wrong_top = rf"^initial_state\[1\] \(top\): expected \[.*JT={top.shape[-1]}\], got"
    yield ErrorCase("initial_state_top", _with(good, initial_state=short), ValueError, wrong_top)
    yield from _mode_errors(good)
    if good.op == "plstm_2d_oriented":
        gate = good.arguments["source_r"][:, :3]
        three = r"^source_r: expected \[.*O=4.*\], got"
        yield ErrorCase("three_orientations", _with(good, source_r=gate), ValueError, three)


def _mode_errors(good: Case) -> Iterator[ErrorCase]:
    """What goes with a mode, and what does not."""
    known = r"^mode: expected None or 'P', got "
    yield ErrorCase("unknown_mode", _option(good, mode="D"), ValueError, known + "'D'")
    yield ErrorCase("mode_as_number", _option(good, mode=1), TypeError, known + "int")
    unread = dict.fromkeys(DIRECTED)
    for name in DIRECTED:
        given = _option(_with(good, **unread | {name: good.arguments[name]}), mode="P")
        yield ErrorCase(f"{name}_with_mode", given, ValueError, f"^{name}: expected None with mode='P', got ")
    left_out = _with(good, mark_u=None)
    yield ErrorCase("no_mark_u", left_out, ValueError, r"^mark_u: expected \[.*\] unless mode='P', got None")


def _graph_errors(good: Case) -> Iterator[ErrorCase]:
    state = good.arguments["initial_state"][:, :-1]
    yield ErrorCase("initial_state", _with(good, initial_state=state), ValueError, r"^initial_state: expected \[.*E=4")
    shape = good.keywords["topology"]

    def other(**fields: Any) -> Case:
        return _option(good, topology=replace(shape, **fields))

    moved, lines = shape.edges.copy(), shape.line_edges
    moved[1] = 0, 4
    outside = r"^topology\.edges: expected nodes from 0 to N-1=3, got \(0, 4\)"
    yield ErrorCase("edge_to_no_node", other(edges=moved), ValueError, outside)
    backward = r"^topology\.line_edges: expected pairs \(earlier, later\) of the 4 edges in topological order, got "
    yield ErrorCase("line_edge_backward", other(line_edges=lines[:, ::-1]), ValueError, backward)
    beyond = np.where(lines == 3, 4, lines)
    yield ErrorCase("line_edge_to_no_edge", other(line_edges=beyond), ValueError, backward)
    apart = lines.copy()
    apart[0] = 0, 3
    meeting = r"^topology\.line_edges: expected edges that meet in a node, got \[0, 1\] and \[2, 3\]"
    yield ErrorCase("line_edge_of_edges_apart", other(line_edges=apart), ValueError, meeting)
    looped = shape.edges.copy()
    looped[3] = 2, 2
    itself = r"^topology\.edges: expected no edge from a node to itself, got \(2, 2\)"
    yield ErrorCase("edge_to_itself", other(edges=looped), ValueError, itself)
    for field in ("edges", "line_edges"):
        integers = rf"^topology\.{field}: expected integers, got "
        for kind, indices in (("fractions", float), ("flags", bool)):
            wrong = getattr(shape, field).astype(indices)
            yield ErrorCase(f"{field}_of_{kind}", other(**{field: wrong}), TypeError, integers)
        unknown = np.full(getattr(shape, field).shape, np.nan)
        yield ErrorCase(f"{field}_of_nan", other(**{field: unknown}), TypeError, integers)
    yield ErrorCase("no_topology", _option(good, topology=None), TypeError, "^topology: expected the attributes edges")
