"""Something that is not finite, or overflows, at any place of one row, sequence or graph: the others stay right."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from operations import adapter_of, draw, installed

from plstm_config.shapes import PLSTM_1D, PLSTM_2D, PLSTM_GRAPH
from plstm_testing.conformance import isolation
from plstm_testing.conformance.draws import Case

SPECIAL = (np.nan, np.inf, -np.inf, 1e200, 0.0, 1e-320)
NAMES = {"plstm_1d": PLSTM_1D, "plstm_2d": PLSTM_2D, "plstm_2d_oriented": PLSTM_2D, "plstm_graph": PLSTM_GRAPH}
SIZES = {"torch": (7, 13), "jax": (5, 9)}
COTANGENT = "cotangent"
# what reads the states that enter a grid on the left, and at the top
OF_LEFT, OF_TOP = ("transition_rl", "transition_dl", "mark_l"), ("transition_du", "transition_ru", "mark_u")


def neighbour_targets() -> dict[str, Callable[[np.random.Generator], None]]:
    """A target for each op and backend, by name."""
    return {f"{name}_isolation_{op}": partial(_isolate, name, op) for name in installed() for op in NAMES}


def _isolate(backend: str, op: str, random: np.random.Generator) -> None:
    adapter, case = adapter_of(backend), draw(op, random, SIZES[backend])
    rows = len(case.arguments["query"])
    if rows < 2:
        return
    known = {name: array for name, array in case.arguments.items() if isinstance(array, np.ndarray)}
    known = {name: array for name, array in known.items() if array[0].size} | {COTANGENT: case.cotangent}
    name, row = str(random.choice(list(known))), int(random.integers(rows))
    array, value = np.array(known[name]), float(random.choice(SPECIAL))
    if not array[row].size:
        return
    flat = int(random.integers(array[row].size))
    place = tuple(int(part) for part in np.unravel_index(flat, array[row].shape))
    array[(row, *place)] = value
    spoilt = _with(case, name, array)
    own = {"plstm_1d": _own_of_sequence, "plstm_graph": _own_of_graph}.get(op, _own_of_grid)(case, name, row, place)
    # what overflows within a graph or on a grid depends on the order of products
    lost = np.array([row]) if abs(value) == 1e200 and op != "plstm_1d" else np.zeros(0, int)
    also_right = None
    if _only_meets_zero(case, name, place):
        array = np.array(array)
        array[(row, *place)] = 0.0
        also_right = _with(case, name, array)
    implementation = str(random.choice([*adapter.implementations[op], "auto"]))
    isolation.check_isolation(adapter, isolation.Spoilt(spoilt, own, lost, also_right), implementation)


def _with(case: Case, name: str, array: Any) -> Case:
    if name == COTANGENT:
        return replace(case, cotangent=array)
    return replace(case, arguments={**case.arguments, name: array})


def _own_of_sequence(case: Case, name: str, row: int, place: tuple[int, ...]) -> dict[str, Any]:
    """The packed sequence of a place, or the whole row."""
    shape = np.shape(case.arguments["query"])[:2]
    bounds = [int(bound) for bound in case.keywords.get("cu_seqlens", (0, shape[1]))]
    steps, sequences = np.zeros(shape, bool), np.zeros((shape[0], len(bounds) - 1), bool)
    for number, (start, end) in enumerate(pairwise(bounds)):
        inside = place[0] == number if name == "initial_state" else start <= place[0] < end
        if inside or "cu_seqlens" not in case.keywords:
            steps[row, start:end] = sequences[row, number] = True
    states = sequences if "cu_seqlens" in case.keywords else sequences[:, 0]
    return dict.fromkeys(PLSTM_1D, steps) | {"initial_state": states, "last_state": states}


def _own_of_grid(case: Case, name: str, row: int, place: tuple[int, ...]) -> dict[str, Any]:
    own = np.arange(len(case.arguments["query"])) == row
    return dict.fromkeys((*PLSTM_2D, "initial_state", "last_state"), own)


def _own_of_graph(case: Case, name: str, row: int, place: tuple[int, ...]) -> dict[str, Any]:
    """Nodes, edges and line edges of the graph of a place, in its head."""
    topology = case.keywords["topology"]
    of_edges = topology.node_graph[topology.edges[:, 0]]
    graphs = {"N": topology.node_graph, "E": of_edges, "L": of_edges[topology.line_edges[:, 0]]}
    letters = {argument: layout[1] for argument, layout in PLSTM_GRAPH.items()}
    letters |= {"initial_state": "E", "last_state": "E", COTANGENT: "N"}
    graph = graphs[letters[name]][place[0]]
    own = {}
    for argument, letter in letters.items():
        own[argument] = np.zeros((len(case.arguments["query"]), len(graphs[letter])), bool)
        own[argument][row] = graphs[letter] == graph
    return own


def _only_meets_zero(case: Case, name: str, place: tuple[int, ...]) -> bool:
    """Whether a gate multiplies nothing but the zero state with which a sequence or grid begins."""
    if "initial_state" in case.arguments or case.op == "plstm_graph":
        return False
    shape = np.shape(case.arguments["query"])
    if case.op == "plstm_1d":
        return name in ("transition", "mark") and place[0] in [int(b) for b in case.keywords.get("cu_seqlens", (0,))]
    if not name.startswith(("transition", "mark")):
        return False
    orientation, x, y = place[:3] if case.op == "plstm_2d_oriented" else (0, *place[:2])
    at_left = x == (shape[1] - 1 if orientation & 1 else 0)
    at_top = y == (shape[2] - 1 if orientation & 2 else 0)
    if case.keywords.get("mode") == "P":
        return at_left and at_top
    return (at_left and name in OF_LEFT) or (at_top and name in OF_TOP)
