"""The reference ops: golden data, finite differences, and agreement of sequence and grid with the graph they are."""

from dataclasses import replace

import numpy as np
import pytest

from plstm_config.shapes import DIRECTED
from plstm_testing import golden, reference
from plstm_testing.conformance import cases, truth
from plstm_testing.conformance.cases import STATE_TRACKING, Topology, graph, grid, sequence, topology
from plstm_testing.conformance.checks import check_golden_op
from plstm_testing.conformance.numpy_adapter import adapter
from plstm_testing.conformance.sharing import sharing_cases
from plstm_testing.finite_differences import directional_derivative
from plstm_testing.tolerances import assert_close

OP_KINDS = ("op_1d", "op_2d", "op_2d_four_orientations", "op_graph")


@pytest.mark.parametrize("name", [name for kind in OP_KINDS for name in golden.names(kind)])
def test_golden(name):
    check_golden_op(adapter, name, "recurrent")


SMALL = [
    sequence("differences", 5, STATE_TRACKING, batch=1, initial=True),
    sequence("packed_differences", 6, STATE_TRACKING, batch=1, initial=True, bounds=[0, 2, 2, 6]),
    sequence("scaled_differences", 4, batch=1, initial=True, scale=0.3),
    grid("differences", 3, 2, "full", STATE_TRACKING, batch=1, initial=True),
    grid("differences_l", 2, 3, "L", STATE_TRACKING, batch=1, initial=True),
    grid("differences_p", 2, 3, "P", batch=1, initial=True),
    grid("differences", 2, 3, "full", STATE_TRACKING, oriented=True, batch=1, initial=True),
    grid("differences_p", 3, 2, "P", oriented=True, batch=1, initial=True),
    graph("differences", topology(5, [(0, 1), (0, 2), (1, 2), (2, 3), (1, 3), (3, 4)]), initial=True),
]


def weighted_sum(call):
    result = truth.evaluate(replace(call, cotangent=None, cotangent_state=None))
    total = np.sum(result.output * call.cotangent)
    states = zip(parts(result.last_state), parts(call.cotangent_state), strict=True)
    return float(total + sum(np.sum(state * weight) for state, weight in states))


def parts(value):
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize("case", SMALL, ids=lambda case: f"{case.op}-{case.name}")
def test_reverse_pass_equals_finite_differences(case):
    random = np.random.default_rng(7)
    call = truth.call(case, "auto", "float64", "cpu")
    gradients = truth.evaluate(call).gradients
    for name, value in call.arguments.items():
        if value is None:
            continue
        for position, part in enumerate(parts(value)):

            def along(moved, name=name, value=value, position=position):
                new = tuple(moved if i == position else p for i, p in enumerate(parts(value)))
                new = new if isinstance(value, tuple) else new[0]
                return weighted_sum(replace(call, arguments={**call.arguments, name: new}))

            for _ in range(3):
                direction = random.standard_normal(part.shape)
                found = directional_derivative(along, part, direction)
                expected = np.sum(parts(gradients[name])[position] * direction)
                assert_close(found, expected, "float64", "gradient", f"{name}[{position}]")


@pytest.fixture
def random():
    return np.random.default_rng(3)


def test_a_sequence_is_a_chain(random):
    """Edge t leads from step t to step t + 1; the first step reads a state that enters over an extra edge."""
    case = sequence("chain", 7, STATE_TRACKING, initial=True)
    args = case.arguments
    expected, last = reference.plstm_1d(**args, return_last_state=True)
    length = 7
    chain = topology(length + 2, [(n, n + 1) for n in range(length + 1)])

    def padded(array):
        """A node in front that only carries the initial state, and one behind that only receives the last."""
        zeros = np.zeros_like(array[:, :1])
        return np.concatenate([zeros, array, zeros], axis=1)

    initial = np.zeros((2, length + 1, *args["initial_state"].shape[1:]))
    initial[:, 0] = args["initial_state"]
    output, states = reference.plstm_graph(
        padded(args["query"]),
        padded(args["key"]),
        padded(args["value"]),
        source=padded(args["source"])[:, :-1],  # edge e starts at node e
        transition=args["transition"],
        mark=padded(args["mark"])[:, 1:],  # and ends at node e + 1
        direct=padded(args["direct"]),
        topology=chain,
        initial_state=initial,
        return_last_state=True,
        scale=3**-0.5,
    )
    assert_close(output[:, 1:-1], expected, label="output")
    assert_close(states[:, -1], last, label="last state")


@pytest.mark.parametrize("mode", ["full", "L", "R", "P_values"])
def test_a_grid_is_a_graph(mode):
    columns, rows = 3, 4
    case = grid("graph", columns, rows, mode, STATE_TRACKING)
    args = case.arguments
    expected = reference.plstm_2d(**args)

    def node(x, y):
        return x * rows + y

    inner = [(x, y) for x in range(columns) for y in range(rows)]
    right = [(node(x, y), node(x + 1, y)) for x, y in inner if x + 1 < columns]
    down = [(node(x, y), node(x, y + 1)) for x, y in inner if y + 1 < rows]
    shape = topology(columns * rows, right + down)
    gates = grid_gates_on_edges(args, shape, rows)
    nodes = {name: args[name].reshape(2, columns * rows, *args[name].shape[3:]) for name in ("query", "key", "value")}
    direct = args["direct"].reshape(2, columns * rows, *args["direct"].shape[3:])
    output = reference.plstm_graph(**nodes, **gates, direct=direct, topology=shape, scale=3**-0.5)
    assert_close(output.reshape(expected.shape), expected, label="output")


@pytest.mark.parametrize("oriented", [False, True])
def test_directed_mode_is_the_general_grid_with_equal_gates(oriented):
    case = grid("directed", 3, 4, "P", STATE_TRACKING, oriented=oriented, initial=True)
    both = {name: case.arguments[serving] for name, serving in DIRECTED.items()}
    keywords = {name: value for name, value in case.keywords.items() if name != "mode"}
    general = replace(case, arguments={**case.arguments, **both}, keywords=keywords)
    found, expected = (truth.evaluate(truth.call(each, "auto", "float64", "cpu")) for each in (case, general))
    assert_close(found.output, expected.output)
    for one, other in zip(found.last_state, expected.last_state, strict=True):
        assert_close(one, other, kind="state")
    for name, serving in DIRECTED.items():
        assert name not in found.gradients
        total = expected.gradients[name] + expected.gradients[serving]
        assert_close(found.gradients[serving], total, kind="gradient")


def grid_gates_on_edges(args, shape: Topology, rows: int):
    """The gates of each edge and line edge, picked by the directions of the edges."""
    zero = np.zeros_like(args["transition_rl"])
    transitions = {name: zero if args[name] is None else args[name] for name in args if name.startswith("transition")}

    def cell(node):
        return (slice(None), *divmod(int(node), rows))

    def goes_right(edge):
        tail, head = shape.edges[edge]
        return head - tail == rows

    edges = range(len(shape.edges))
    source = [args["source_r" if goes_right(edge) else "source_d"][cell(shape.edges[edge][0])] for edge in edges]
    mark = [args["mark_l" if goes_right(edge) else "mark_u"][cell(shape.edges[edge][1])] for edge in edges]
    transition = []
    for incoming, outgoing in shape.line_edges:
        name = ("r" if goes_right(outgoing) else "d") + ("l" if goes_right(incoming) else "u")
        transition.append(transitions[f"transition_{name}"][cell(shape.edges[outgoing][0])])
    stacked = {"source": source, "transition": transition, "mark": mark}
    return {name: np.stack(gates, axis=1) for name, gates in stacked.items()}


def test_graph_with_scalar_gates_is_the_state_tracking_form_with_ones():
    case = graph("forms", topology(6, [(0, 1), (1, 2), (0, 2), (2, 4), (3, 4), (4, 5)]), initial=True)
    arguments = dict(case.arguments)
    ones = {"query": 1, "key": 1, "value": 1, "source": 3, "transition": 2, "mark": 3, "direct": 4, "initial_state": 1}
    wide = {name: array.reshape(*array.shape, *[1] * ones[name]) for name, array in arguments.items()}
    keywords = {"topology": case.keywords["topology"], "return_last_state": True}
    output, states = reference.plstm_graph(**arguments, **keywords)
    wide_output, wide_states = reference.plstm_graph(**wide, **keywords)
    assert_close(wide_output[..., 0], output, label="output")
    assert_close(wide_states[..., 0], states, label="states")


def test_graph_equals_the_linear_system(random):
    """(I - T) C = S K V, H = Q (M C + D K V): eq. 5 and 6 written as one matrix equation."""
    shape = topology(7, [(a, b) for a in range(7) for b in range(a + 1, 7) if (a + b) % 3])
    case = graph("system", shape, heads=1)
    args = {name: array[0] for name, array in case.arguments.items()}
    edges, lines = shape.edges, shape.line_edges
    matrix = np.eye(len(edges))
    matrix[lines[:, 1], lines[:, 0]] -= args["transition"]
    node_of_source = np.zeros((len(edges), 7))
    node_of_source[np.arange(len(edges)), edges[:, 0]] = args["source"]
    node_of_mark = np.zeros((7, len(edges)))
    node_of_mark[edges[:, 1], np.arange(len(edges))] = args["mark"]
    gating = node_of_mark @ np.linalg.solve(matrix, node_of_source) + np.diag(args["direct"])
    expected = (gating * (args["query"] @ args["key"].T)) @ args["value"]
    output = reference.plstm_graph(**case.arguments, topology=shape)
    assert_close(output[0], expected)


def test_packed_sequences_equal_separate_ones():
    case = sequence("pack", 9, STATE_TRACKING, initial=True, bounds=[0, 4, 4, 9])
    output, last = reference.plstm_1d(**case.arguments, **case.keywords)
    for index, (start, end) in enumerate([(0, 4), (4, 4), (4, 9)]):
        own = {name: array[:, start:end] for name, array in case.arguments.items() if name != "initial_state"}
        state = case.arguments["initial_state"][:, index]
        piece, piece_last = reference.plstm_1d(**own, initial_state=state, return_last_state=True)
        assert_close(output[:, start:end], piece)
        assert_close(last[:, index], piece_last, kind="state")


@pytest.mark.parametrize("orientation", range(4))
def test_one_orientation_alone_is_the_grid_seen_from_its_corner(orientation, random):
    case = grid("alone", 3, 4, "full", STATE_TRACKING, oriented=True, initial=True)
    gates = {name for name in case.arguments if name.startswith(("source", "transition", "mark"))}
    only = {name: np.zeros_like(case.arguments[name]) for name in gates}
    for name in gates:
        only[name][:, orientation] = case.arguments[name][:, orientation]
    output = reference.plstm_2d_oriented(**{**case.arguments, **only, "initial_state": None})

    def seen(array):
        array = array[:, ::-1] if orientation in (1, 3) else array
        return array[:, :, ::-1] if orientation in (2, 3) else array

    turned = {
        name: seen(array[:, orientation] if name in gates else array)
        for name, array in case.arguments.items()
        if name != "initial_state"
    }
    assert_close(output, seen(reference.plstm_2d(**turned)))


def test_topology_is_checked():
    case = graph("bad", topology(3, [(0, 1), (1, 2)]))
    for edges, lines, message in [
        ([[0, 1], [1, 3]], [[0, 1]], r"topology.edges: expected nodes from 0 to N-1=2, got \(1, 3\)"),
        ([[1, 2], [0, 1]], [[1, 0]], r"topology.line_edges: expected pairs \(earlier, later\)"),
        ([[0, 1], [0, 2]], [[0, 1]], r"topology.line_edges: expected edges that meet in a node, got \[0, 1\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            reference.plstm_graph(**case.arguments, topology=Topology(3, np.array(edges), np.array(lines)))


def test_case_names_are_unique():
    for op in cases.OPS:
        names = [case.name for case in (*cases.cases(op), *sharing_cases(op))]
        assert len(names) == len(set(names)) > 5
    with pytest.raises(ValueError, match="op: expected one of"):
        cases.cases("plstm_3d")
