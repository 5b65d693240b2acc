"""The generated cases: the same for every backend, implementation, dtype and run."""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from plstm_config.shapes import (
    DIRECTED,
    ORIENTATIONS,
    PLSTM_1D,
    PLSTM_2D,
    PLSTM_2D_ORIENTED,
    PLSTM_GRAPH,
    PLSTM_GRAPH_STATE_TRACKING,
)
from plstm_config.topology import DagTopology

from .adapter import Array
from .draws import Case, gate, matrices, normal, special_matrices

OPS = ("plstm_1d", "plstm_2d", "plstm_2d_oriented", "plstm_graph")

# Sizes of the state-tracking dimensions JQ, JK, JV, JT, JO.
SCALAR = (1, 1, 1, 1, 1)
STATE_TRACKING = (2, 1, 2, 3, 2)
WIDE_SCALAR_STATE = (2, 2, 2, 1, 2)
STATE_ONLY = (1, 1, 1, 2, 1)


@cache
def cases(op: str) -> tuple[Case, ...]:
    """All cases of an op.

    Args:
        op: one of `OPS`.

    Returns:
        The cases.

    Raises:
        ValueError: if there is no such op.
    """
    generators = {
        "plstm_1d": sequence_cases,
        "plstm_2d": grid_cases,
        "plstm_2d_oriented": oriented_cases,
        "plstm_graph": graph_cases,
    }
    if op not in generators:
        raise ValueError(f"op: expected one of {list(OPS)}, got {op!r}")
    return tuple(generators[op]())


def sequence(
    name: str,
    length: int,
    j: tuple[int, ...] = SCALAR,
    *,
    batch: int = 2,
    key_size: int = 3,
    value_size: int = 2,
    initial: bool = False,
    last: bool = True,
    bounds: list[int] | None = None,
    special: bool = False,
    strength: float = 1.0,
    **keywords: Any,
) -> Case:
    """Draw one case of `plstm_1d`.

    Args:
        name: of the case, from which the numbers follow.
        length: T.
        j: JQ, JK, JV, JT, JO.
        batch: B.
        key_size: DK.
        value_size: DV.
        initial: whether a state enters.
        last: whether the state that leaves is asked for.
        bounds: of packed sequences.
        special: whether transitions are zeros, signed units and others at random.
        strength: factor of source, mark and direct.
        **keywords: further ones of the call.

    Returns:
        The case.
    """
    random = _random("plstm_1d", name)
    sizes = {"B": batch, "T": length, "DK": key_size, "DV": value_size} | _j_sizes(j)
    arguments: dict[str, Any] = {argument: gate(random, layout, sizes) for argument, layout in PLSTM_1D.items()}
    if special:
        arguments["transition"] = special_matrices(random, list(arguments["transition"].shape))
    for argument in ("source", "mark", "direct"):
        arguments[argument] = strength * arguments[argument]
    state = ["B", "DK", "DV", "JT"]
    if bounds is not None:
        keywords["cu_seqlens"] = np.array(bounds)
        sizes["S"] = len(bounds) - 1
        state.insert(1, "S")
    if initial:
        arguments["initial_state"] = normal(random, sizes, *state)
    cotangent = normal(random, sizes, "B", "T", "DV", "JO")
    cotangent_state = normal(random, sizes, *state) if last else None
    return Case(name, "plstm_1d", arguments, {}, keywords | {"return_last_state": last}, cotangent, cotangent_state)


def sequence_cases() -> Iterator[Case]:
    """Cases of `plstm_1d`."""
    yield sequence("odd_length", 13, chunk_size=4)
    yield sequence("power_of_two", 16, chunk_size=4)
    yield sequence("output_only", 21, last=False, chunk_size=4)
    yield sequence("initial_state", 11, initial=True, chunk_size=4)
    yield sequence("initial_state_output_only", 11, initial=True, last=False, chunk_size=4)
    yield sequence("length_one", 1, initial=True)
    yield sequence("length_one_from_zero", 1)
    yield sequence("length_zero", 0, initial=True)
    yield sequence("empty_batch", 5, batch=0, initial=True)
    yield sequence("default_chunk", 67, initial=True)
    yield sequence("several_default_chunks", 301, batch=1)
    yield sequence("chunk_of_one", 6, initial=True, chunk_size=1)
    yield sequence("chunk_beyond_length", 7, initial=True, chunk_size=64)
    yield sequence("special_gates", 37, initial=True, special=True, chunk_size=8)
    yield sequence("huge_gates", 9, initial=True, strength=50.0, chunk_size=4)
    yield sequence("one_channel", 9, batch=1, key_size=1, value_size=1, initial=True, chunk_size=4)
    yield sequence("own_scale", 9, initial=True, scale=0.37, chunk_size=4)
    yield sequence("state_tracking", 21, STATE_TRACKING, initial=True, chunk_size=8)
    yield sequence("state_tracking_default_chunk", 71, STATE_TRACKING, initial=True)
    yield sequence("state_tracking_special_gates", 19, STATE_TRACKING, initial=True, special=True, chunk_size=4)
    yield sequence("state_tracking_length_one", 1, STATE_TRACKING, initial=True)
    yield sequence("state_tracking_length_zero", 0, STATE_TRACKING, initial=True)
    yield sequence("state_tracking_output_only", 13, STATE_TRACKING, last=False, chunk_size=4)
    yield sequence("wide_scalar_state", 14, WIDE_SCALAR_STATE, initial=True, chunk_size=4)
    yield sequence("wide_state_only", 14, STATE_ONLY, initial=True, chunk_size=4)
    packed = [0, 5, 5, 6, 17, 23]
    yield sequence("packed", 23, bounds=packed, initial=True, chunk_size=4)
    yield sequence("packed_from_zero", 23, bounds=packed, chunk_size=4)
    yield sequence("packed_output_only", 23, bounds=packed, last=False, chunk_size=4)
    yield sequence("packed_one_sequence", 9, bounds=[0, 9], initial=True, chunk_size=4)
    yield sequence("packed_empty_ends", 9, bounds=[0, 0, 4, 9, 9], initial=True, chunk_size=4)
    yield sequence("packed_special_gates", 23, bounds=packed, initial=True, special=True, chunk_size=8)
    yield sequence("packed_default_chunk", 83, bounds=[0, 33, 50, 83], initial=True)
    yield sequence("packed_state_tracking", 23, STATE_TRACKING, bounds=packed, initial=True, chunk_size=4)


MODES = ("full", "L", "R", "P", "apart")
_ABSENT = {
    "L": ("transition_dl",),
    "R": ("transition_ru",),
    "apart": ("transition_dl", "transition_ru"),
    "P": tuple(DIRECTED),
}


def grid(
    name: str,
    columns: int,
    rows: int,
    mode: str,
    j: tuple[int, ...] = SCALAR,
    *,
    oriented: bool = False,
    batch: int = 2,
    value_size: int = 2,
    initial: bool = False,
    last: bool = True,
    special: bool = False,
    same: Mapping[str, str] | None = None,
    **keywords: Any,
) -> Case:
    """Draw one case of `plstm_2d` or `plstm_2d_oriented`.

    Modes: "full" has four transitions, "L" and "R" leave one out, "apart" both; "P" says so and leaves out what it does
    not read; "P_values" has the same numbers as a general grid.

    Args:
        name: of the case, from which the numbers follow.
        columns: X.
        rows: Y.
        mode: see above.
        j: JQ, JK, JV, JT, JO.
        oriented: whether gates have the axis O.
        batch: B.
        value_size: DV.
        initial: whether states enter.
        last: whether the states that leave are asked for.
        special: whether transitions are zeros, signed units and others at random.
        same: arguments that are the same array as another.
        **keywords: further ones of the call.

    Returns:
        The case.
    """
    op, layouts = ("plstm_2d_oriented", PLSTM_2D_ORIENTED) if oriented else ("plstm_2d", PLSTM_2D)
    random = _random(op, name)
    sizes = {"B": batch, "O": ORIENTATIONS, "X": columns, "Y": rows, "DK": 3, "DV": value_size} | _j_sizes(j)
    # a general grid has two transitions into each edge: half of the bound each
    bound = 0.45 if mode == "full" else 0.9
    arguments: dict[str, Any] = {argument: gate(random, layout, sizes, bound) for argument, layout in layouts.items()}
    if special:
        for argument in ("transition_rl", "transition_du"):
            arguments[argument] = special_matrices(random, list(arguments[argument].shape))
    if mode in ("P", "P_values"):
        arguments.update(_shared_transitions(random, list(arguments["transition_rl"].shape), special))
        arguments.update({left_out: arguments[serving].copy() for left_out, serving in DIRECTED.items()})
    arguments.update(dict.fromkeys(_ABSENT.get(mode, ())))
    if mode == "P":
        keywords |= {"mode": "P"}
    for argument in same or {}:
        del arguments[argument]
    batch_letters = ["B", "O"] if oriented else ["B"]
    if initial:
        arguments["initial_state"] = _borders(random, sizes, batch_letters)
    cotangent = normal(random, sizes, "B", "X", "Y", "DV", "JO")
    cotangent_state = _borders(random, sizes, batch_letters) if last else None
    keywords |= {"return_last_state": last}
    return Case(name, op, arguments, same or {}, keywords, cotangent, cotangent_state)


def grid_cases() -> Iterator[Case]:
    """Cases of `plstm_2d`."""
    for mode in MODES:
        yield grid(f"{mode}_odd_sides", 5, 9, mode, initial=True, block_size=4)
        yield grid(f"{mode}_output_only", 6, 3, mode, initial=True, last=False, block_size=2)
        yield grid(f"{mode}_special_gates", 9, 6, mode, initial=mode != "full", special=mode != "full", block_size=4)
        yield grid(f"{mode}_default_block", 19, 13, mode, batch=1, initial=True)
        yield grid(f"{mode}_state_tracking", 5, 4, mode, STATE_TRACKING, initial=True, block_size=2)
        yield grid(f"{mode}_one_cell", 1, 1, mode, initial=True)
        yield grid(f"{mode}_one_column", 1, 7, mode, initial=True, block_size=4)
        yield grid(f"{mode}_one_row", 6, 1, mode, initial=True, block_size=4)
        yield grid(f"{mode}_no_rows", 4, 0, mode, initial=True)
        yield grid(f"{mode}_no_columns", 0, 4, mode, initial=True)
        yield grid(f"{mode}_empty_batch", 3, 4, mode, batch=0, initial=True)
    yield grid("P_values", 6, 7, "P_values", initial=True, block_size=4)
    yield grid("full_wide_scalar_state", 5, 6, "full", WIDE_SCALAR_STATE, initial=True, block_size=4)
    yield grid("L_wide_state_only", 5, 6, "L", STATE_ONLY, initial=True, block_size=4)
    yield grid("P_wide_state_only", 5, 6, "P", STATE_ONLY, initial=True, block_size=4)
    yield grid("P_wide_scalar_state", 5, 6, "P", WIDE_SCALAR_STATE, initial=True, block_size=4)
    yield grid("L_own_scale", 4, 5, "L", scale=0.37)
    yield grid("P_own_scale", 4, 5, "P", scale=0.37)
    yield grid("P_block_of_one", 3, 4, "P", initial=True, block_size=1)
    yield grid("full_block_beyond_sides", 3, 4, "full", initial=True, block_size=32)
    yield grid("R_long_and_narrow", 35, 2, "R", initial=True)


def oriented_cases() -> Iterator[Case]:
    """Cases of `plstm_2d_oriented`."""
    for mode in MODES:
        yield grid(f"{mode}_odd_sides", 5, 7, mode, oriented=True, initial=True, block_size=4)
        yield grid(f"{mode}_output_only", 6, 3, mode, oriented=True, last=False, block_size=2)
        yield grid(f"{mode}_state_tracking", 4, 3, mode, STATE_TRACKING, oriented=True, initial=True, block_size=2)
        yield grid(f"{mode}_default_block", 11, 10, mode, oriented=True, batch=1, last=False)
    for mode in ("L", "P"):
        yield grid(f"{mode}_special_gates", 6, 5, mode, oriented=True, initial=True, special=True, block_size=4)
        yield grid(f"{mode}_one_cell", 1, 1, mode, oriented=True, initial=True)
        yield grid(f"{mode}_one_column", 1, 5, mode, oriented=True, initial=True)
        yield grid(f"{mode}_one_row", 5, 1, mode, oriented=True, initial=True)
        yield grid(f"{mode}_no_rows", 3, 0, mode, oriented=True, initial=True)
        yield grid(f"{mode}_empty_batch", 3, 2, mode, oriented=True, batch=0, initial=True)
    yield grid("P_values", 4, 5, "P_values", oriented=True, initial=True)
    yield grid("R_own_scale", 4, 5, "R", oriented=True, scale=0.37)
    yield grid("P_wide_state_only", 4, 5, "P", STATE_ONLY, oriented=True, initial=True, block_size=4)


@dataclass(frozen=True)
class Topology:
    """Edges of a DAG in topological order, and which of them follow one another.

    Attributes:
        num_nodes: N.
        edges: pairs (tail, head) [E,2].
        line_edges: pairs (incoming, outgoing) of indices into `edges` [L,2].
    """

    num_nodes: int
    edges: Array
    line_edges: Array


def topology(num_nodes: int, edges: list[tuple[int, int]]) -> Topology:
    """Order edges by their tails, which makes them topological where every tail is below its head, and connect them."""
    ordered = sorted(edges)
    lines = [
        (first, second) for first, a in enumerate(ordered) for second, b in enumerate(ordered) if a[1] == b[0]
    ]  # fmt: skip
    return Topology(num_nodes, np.array(ordered, int).reshape(-1, 2), np.array(lines, int).reshape(-1, 2))


def graph(
    name: str,
    shape: Topology | DagTopology,
    *,
    heads: int = 2,
    j: tuple[int, ...] | None = None,
    initial: bool = False,
    last: bool = True,
    **keywords: Any,
) -> Case:
    """Draw one case of `plstm_graph`.

    Args:
        name: of the case, from which the numbers follow.
        shape: the graph.
        heads: H.
        j: JQ, JK, JV, JT, JO; None for the form without.
        initial: whether states enter.
        last: whether the states of all edges are asked for.
        **keywords: further ones of the call.

    Returns:
        The case.
    """
    random = _random("plstm_graph", name)
    sizes = {"H": heads, "N": shape.num_nodes, "E": len(shape.edges), "L": len(shape.line_edges), "DK": 3, "DV": 2}
    layouts, state, output = PLSTM_GRAPH, ["H", "E", "DK", "DV"], ["H", "N", "DV"]
    if j is not None:
        sizes |= _j_sizes(j)
        layouts, state, output = PLSTM_GRAPH_STATE_TRACKING, [*state, "JT"], [*output, "JO"]
    arguments: dict[str, Any] = {argument: gate(random, layout, sizes) for argument, layout in layouts.items()}
    if initial:
        arguments["initial_state"] = normal(random, sizes, *state)
    cotangent = normal(random, sizes, *output)
    cotangent_state = normal(random, sizes, *state) if last else None
    keywords |= {"topology": shape, "return_last_state": last}
    return Case(name, "plstm_graph", arguments, {}, keywords, cotangent, cotangent_state)


def graph_cases() -> Iterator[Case]:
    """Cases of `plstm_graph`."""
    random = _random("plstm_graph", "edges")
    dense = [(a, b) for a in range(9) for b in range(a + 1, 9) if random.random() < 0.45]
    yield graph("dense", topology(9, dense), last=False)
    yield graph("dense_states", topology(9, dense), initial=True)
    yield graph("chain", topology(12, [(n, n + 1) for n in range(11)]), initial=True)
    yield graph("star", topology(7, [(n, 6) for n in range(6)]), initial=True)
    yield graph("forest_with_lone_nodes", topology(9, [(0, 3), (1, 3), (3, 5), (2, 4)]), initial=True)
    yield graph("repeated_edges", topology(4, [(0, 1), (0, 1), (1, 3), (1, 2), (2, 3)]), initial=True)
    yield graph("no_edges", topology(3, []), initial=True)
    yield graph("no_nodes", topology(0, []), initial=True)
    yield graph("no_heads", topology(4, [(0, 1), (1, 2)]), heads=0, initial=True)
    yield graph("state_tracking", topology(9, dense), j=STATE_TRACKING, last=False)
    yield graph("state_tracking_states", topology(9, dense), j=STATE_TRACKING, initial=True)
    yield graph("only_transitions_are_matrices", topology(9, dense), j=(1, 1, 1, 3, 1), initial=True)
    yield graph("state_tracking_no_edges", topology(3, []), j=STATE_TRACKING, initial=True)
    yield graph("own_scale", topology(5, [(0, 1), (1, 2), (0, 2), (2, 4)]), scale=0.37)


def _random(op: str, name: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(f"{op}/{name}".encode()))


def _j_sizes(j: tuple[int, ...]) -> dict[str, int]:
    return dict(zip(("JQ", "JK", "JV", "JT", "JO"), j, strict=True))


def _borders(random: np.random.Generator, sizes: dict[str, int], batch: list[str]) -> tuple[Array, Array]:
    sides = [normal(random, sizes, *batch, side, "DK", "DV", "JT") for side in ("Y", "X")]
    return sides[0], sides[1]


def _shared_transitions(random: np.random.Generator, shape: list[int], special: bool) -> dict[str, Array]:
    """P-mode: one bounded transition split between right and down."""
    whole = special_matrices(random, shape) if special else matrices(random, shape, 1.0)
    share = random.uniform(0.0, 1.0, [*shape[:-2], 1, 1])
    if special:  # also the ends of the range: everything goes one way
        share = np.round(share, 1)
    return {"transition_rl": share * whole, "transition_du": (1.0 - share) * whole}
