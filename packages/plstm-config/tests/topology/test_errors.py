"""What is no DAG is refused, and the offending edge is named."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plstm_config.topology import DagTopology

VALUE_ERRORS = {
    "cycle": ([(3, 0), (0, 1), (1, 2), (2, 0)], "edges: expected no cycle, got ("),
    "two_way": (
        [(2, 3), (0, 1), (1, 0)],
        "edges: expected no cycle, got (0, 1) at position 1 in the cycle 0 -> 1 -> 0; "
        "of an undirected graph, say undirected=True",
    ),
    "hidden_two_way": ([(0, 1), (1, 2), (2, 0), (2, 1)], "edges: expected no cycle, got (1, 2) at position 1 in the"),
    "self_loop": ([(0, 1), (2, 2)], "edges: expected no self loop, got (2, 2) at position 1; drop self loops"),
    "repeated": ([(0, 1), (1, 2), (0, 1)], "edges: expected every edge once, got again (0, 1) at position 2"),
    "too_large": ([(0, 1), (1, 4)], "edges: expected nodes from 0 to N-1=3, got (1, 4) at position 1"),
    "negative": ([(-1, 1)], "edges: expected nodes from 0 to N-1=3, got (-1, 1) at position 0"),
    "triples": ([(0, 1, 2)], "edges: expected pairs [E,2], got (1, 3)"),
    "ragged": ([(0, 1), (1,)], "edges: expected pairs [E,2], got a ragged sequence"),
    "flat": ([0, 1], "edges: expected pairs [E,2], got (2,)"),
}
TYPE_ERRORS = {
    "floats": ([(0.0, 1.0)], "edges: expected integers, got float64"),
    "flags": ([(False, True)], "edges: expected integers, got bool"),
    "text": ("01", "edges: expected an array or a sequence of pairs, got str"),
    "number": (7, "edges: expected an array or a sequence of pairs, got int"),
    "none": (None, "edges: expected an array or a sequence of pairs, got NoneType"),
}


@pytest.mark.parametrize("mode", ["P", "D"])
@pytest.mark.parametrize("name", VALUE_ERRORS)
def test_wrong_edges(name, mode) -> None:
    edges, message = VALUE_ERRORS[name]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        DagTopology.from_edges(4, edges, mode)


@pytest.mark.parametrize("name", TYPE_ERRORS)
def test_edges_of_a_wrong_type(name) -> None:
    edges, message = TYPE_ERRORS[name]
    with pytest.raises(TypeError, match=f"^{re.escape(message)}"):
        DagTopology.from_edges(4, edges)


@given(st.data())
def test_the_named_edge_lies_on_a_cycle(data) -> None:
    """Also where most of the nodes that cannot be ordered only hang below the cycle."""
    size = data.draw(st.integers(3, 9))
    order = data.draw(st.permutations(range(size)))
    forward = [(order[a], order[b]) for a in range(size) for b in range(a + 1, size)]
    edges = data.draw(st.lists(st.sampled_from(forward), unique=True, min_size=1))
    tail, head = data.draw(st.sampled_from(forward))
    edges = [*[edge for edge in edges if edge != (tail, head)], (tail, head), (head, tail)]
    with pytest.raises(ValueError, match=r"^edges: expected no cycle, got \(") as caught:
        DagTopology.from_edges(size, edges)
    named = re.search(r"got \((\d+), (\d+)\) at position (\d+) in the cycle ([\d >.-]+)(;|$)", str(caught.value))
    assert named is not None
    first, second, position = (int(named[i]) for i in (1, 2, 3))
    assert edges[position] == (first, second)
    reached, frontier = set(), {second}
    while frontier:
        reached |= frontier
        frontier = {b for a, b in edges if a in frontier} - reached
    assert first in reached


def test_a_long_cycle_is_cut() -> None:
    edges = [(node, (node + 1) % 1000) for node in range(1000)]
    with pytest.raises(ValueError, match=r" -> \.\.\. -> \d+$"):
        DagTopology.from_edges(1000, edges)


def test_no_edge_fits_no_nodes() -> None:
    with pytest.raises(ValueError, match=r"^edges: expected no edges, since N=0, got \(0, 1\) at position 0"):
        DagTopology.from_edges(0, [(0, 1)])


@pytest.mark.parametrize("size", [2.0, "2", None, True])
def test_number_of_nodes_of_a_wrong_type(size) -> None:
    with pytest.raises(TypeError, match=r"^num_nodes: expected an integer, got "):
        DagTopology.from_edges(size, [])


@pytest.mark.parametrize("size", [2**63, 10**30])
def test_number_of_nodes_beyond_any_index(size) -> None:
    with pytest.raises(ValueError, match=r"^num_nodes: expected at most 9223372036854775807, got an integer beyond"):
        DagTopology.from_edges(size, [])


def test_negative_number_of_nodes() -> None:
    with pytest.raises(ValueError, match=r"^num_nodes: expected a number >= 0, got -1"):
        DagTopology.from_edges(-1, [])


def test_unknown_mode() -> None:
    with pytest.raises(ValueError, match=r"^mode: expected 'P' or 'D', got 'Q'"):
        DagTopology.from_edges(2, [(0, 1)], "Q")
    with pytest.raises(ValueError, match=r"^mode: expected 'P' or 'D', got 'Q'"):
        DagTopology.from_edges(2, [(0, 1)]).with_mode("Q")


def test_an_undirected_edge_twice_the_same_way_is_repeated() -> None:
    with pytest.raises(ValueError, match=r"^edges: expected every edge once, got again \(1, 0\) at position 2"):
        DagTopology.from_edges(2, [(1, 0), (0, 1), (1, 0)], undirected=True)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([(0, 3)], "line_edges: expected indices of edges from 0 to E-1=2, got (0, 3) at position 0"),
        ([(0, 1), (-1, 0)], "line_edges: expected indices of edges from 0 to E-1=2, got (-1, 0) at position 1"),
        ([(0, 2)], "line_edges: expected pairs of edges (a, b), (b, c), got (0, 2) at position 0, which joins "
         "(0, 1) and (0, 2)"),
        ([(0, 1), (0, 1)], "line_edges: expected every pair once, got again (0, 1) at position 1"),
        ([(1, 0)], "line_edges: expected pairs of edges (a, b), (b, c), got (1, 0) at position 0, which joins "
         "(1, 2) and (0, 1)"),
        ([0, 1], "line_edges: expected pairs [E,2], got (2,)"),
    ],
)  # fmt: skip
def test_wrong_line_edges(lines, message) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        DagTopology.from_line_edges(3, [(0, 1), (1, 2), (0, 2)], lines)


def make(**changes) -> DagTopology:
    parts = {
        "num_nodes": 3, "edges": [(0, 1), (1, 2)], "line_edges": [(0, 1)], "edge_order": np.array([0, 1]),
        "mode": "P", "num_input_edges": 2, "node_ptr": np.array([0, 3]),
    }  # fmt: skip
    return DagTopology(**parts | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edges": [(1, 2), (0, 1)], "line_edges": [(1, 0)]}, "line_edges: expected pairs (earlier, later), since"),
        ({"edge_order": np.array([0, 0])}, "edge_order: expected E=2 different positions"),
        ({"edge_order": np.array([0])}, "edge_order: expected E=2 different positions"),
        ({"node_ptr": np.array([0, 2])}, "node_ptr: expected bounds that rise from 0 to N=3, got [0 2]"),
        ({"node_ptr": np.array([0, 1, 3])}, "edges: expected them graph by graph, and none from one graph"),
    ],
)
def test_parts_that_do_not_fit(changes, message) -> None:
    assert make().edges.shape == (2, 2)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        make(**changes)
