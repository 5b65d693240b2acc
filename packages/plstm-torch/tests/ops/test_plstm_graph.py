"""The graph op: every implementation against the reference, and graphs that are sequences or grids."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradgradcheck
from torch.func import grad, hessian, jvp, vmap

import plstm_native
from plstm_config.shapes import PLSTM_GRAPH, PLSTM_GRAPH_STATE_TRACKING
from plstm_config.topology import DagTopology
from plstm_testing import reference
from plstm_testing.conformance.cases import SCALAR, STATE_TRACKING
from plstm_testing.conformance.draws import random_dag
from plstm_testing.tolerances import assert_close
from plstm_torch.ops import plstm_1d, plstm_2d, plstm_graph
from plstm_torch.ops._plstm_graph import levels
from plstm_torch.ops._plstm_graph.forms import resolve_implementation

# torch itself scripts functions for forward mode
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated:DeprecationWarning")
NATIVE = [] if plstm_native.unavailable() else ["native"]
EACH = pytest.mark.parametrize("implementation", ["recurrent", "parallel", *NATIVE])
FORMS = pytest.mark.parametrize(
    ("implementation", "j"),
    [
        *(pytest.param(name, None, id=f"{name}-scalar") for name in ("recurrent", "parallel", *NATIVE)),
        *(pytest.param(name, STATE_TRACKING, id=f"{name}-state_tracking") for name in ("recurrent", "parallel")),
    ],
)
NAMES = tuple(PLSTM_GRAPH)


@st.composite
def dags(draw, max_nodes=9):
    size = draw(st.integers(2, max_nodes))
    pairs = [(a, b) for b in range(size) for a in range(b)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=25))
    return DagTopology.from_edges(size, edges, mode=draw(st.sampled_from("PD")))


def draw_arguments(topology, j=None, heads=2, dtype=torch.float64, initial=True):
    """Arguments by name; the graph dims of the sizes follow the topology."""
    sizes = {"H": heads, "N": topology.num_nodes, "E": len(topology.edges), "L": len(topology.line_edges)}
    sizes |= {"DK": 3, "DV": 2}
    layouts, state = PLSTM_GRAPH, ["H", "E", "DK", "DV"]
    if j is not None:
        sizes |= dict(zip(("JQ", "JK", "JV", "JT", "JO"), j, strict=True))
        layouts, state = PLSTM_GRAPH_STATE_TRACKING, [*state, "JT"]
    shapes = {name: [sizes[letter] for letter in layout] for name, layout in layouts.items()}
    shapes |= {"initial_state": [sizes[letter] for letter in state]} if initial else {}
    scales = {"transition": 0.4}
    return {
        name: (scales.get(name, 1.0) * torch.randn(*shape, dtype=dtype)).requires_grad_()
        for name, shape in shapes.items()
    }


def run(arguments, topology, **keywords):
    return plstm_graph(**arguments, topology=topology, **keywords)


def gradients(results, arguments):
    weights = [torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view_as(result) for result in results]
    return torch.autograd.grad(results, list(arguments.values()), weights)


def assert_same(actual, expected, kind="gradient", dtype="float64"):
    for index, (one, other) in enumerate(zip(actual, expected, strict=True)):
        assert_close(one.detach().double(), other.detach().double(), dtype, kind, f"tensor {index}")


@FORMS
@settings(max_examples=25, deadline=None)
@given(topology=dags())
def test_agrees_with_the_reference(implementation, j, topology):
    arguments = draw_arguments(topology, j)
    arrays = {name: tensor.detach().numpy() for name, tensor in arguments.items()}
    output, states = run(arguments, topology, return_last_state=True, implementation=implementation)
    expected, expected_states = reference.plstm_graph(**arrays, topology=topology, return_last_state=True)
    assert_same([output], [torch.from_numpy(expected)], "output")
    assert_same([states], [torch.from_numpy(expected_states)], "state")
    weights = [torch.linspace(-1, 1, x.numel(), dtype=x.dtype).view_as(x).numpy() for x in (output, states)]
    truth = reference.plstm_graph_gradients(
        **arrays, topology=topology, cotangent=weights[0], cotangent_state=weights[1]
    )
    found = gradients((output, states), arguments)
    assert_same(found, [torch.from_numpy(truth[name]) for name in arguments])


@FORMS
@pytest.mark.parametrize("block", [1, 3, 7])
def test_blocks_of_edges_change_nothing(implementation, j, block, monkeypatch):
    topology = random_dag(9)
    arguments = draw_arguments(topology, j, initial=False)
    whole = run(arguments, topology, implementation=implementation)
    expected = gradients((whole,), arguments)
    monkeypatch.setattr(levels, "_block_size", lambda states: block)
    pieces = run(arguments, topology, implementation=implementation)
    assert_same([pieces], [whole], "output")
    assert_same(gradients((pieces,), arguments), expected)


@FORMS
def test_batch_equals_graphs_one_by_one(implementation, j):
    parts = [random_dag(5, 1), DagTopology.from_edges(3, []), random_dag(7, 2), DagTopology.from_edges(0, [])]
    batch = DagTopology.batch(parts)
    arguments = draw_arguments(batch, j)
    output, states = run(arguments, batch, return_last_state=True, implementation=implementation)
    outputs_only = run(arguments, batch, implementation=implementation)
    nodes, edges, lines = 0, 0, 0
    for part in parts:
        own = {}
        ranges = {"N": (nodes, part.num_nodes), "E": (edges, len(part.edges)), "L": (lines, len(part.line_edges))}
        for name, tensor in arguments.items():
            axis = "E" if name == "initial_state" else PLSTM_GRAPH[name][1]
            own[name] = tensor.narrow(1, *ranges[axis])
        expected, expected_states = run(own, part, return_last_state=True, implementation=implementation)
        assert_same([output.narrow(1, *ranges["N"]), outputs_only.narrow(1, *ranges["N"])], [expected] * 2, "output")
        assert_same([states.narrow(1, *ranges["E"])], [expected_states], "state")
        nodes, edges, lines = nodes + part.num_nodes, edges + len(part.edges), lines + len(part.line_edges)


@FORMS
def test_path_equals_plstm_1d(implementation, j):
    length, sizes = 6, j or SCALAR
    dim_q, dim_k, dim_v, dim_t, dim_o = sizes
    shapes = [(3, dim_q), (3, dim_k), (2, dim_v), (dim_t, dim_k, dim_v), (dim_t, dim_t), (dim_o, dim_q, dim_t)]
    shapes.append((dim_o, dim_q, dim_k, dim_v))
    sequence = [0.5 * torch.randn(2, length, *shape, dtype=torch.float64) for shape in shapes]
    initial = torch.randn(2, 3, 2, dim_t, dtype=torch.float64)
    expected, expected_state = plstm_1d(*sequence, initial_state=initial, return_last_state=True)
    # a node before the first step and one after the last: their edges carry the state in and out
    topology = DagTopology.from_edges(length + 2, list(pairwise(range(length + 2))))
    arguments = dict(zip(NAMES, sequence, strict=True))

    def padded(tensor, before, after):
        zeros = tensor.new_zeros(2, 1, *tensor.shape[2:])
        return torch.cat([zeros] * before + [tensor] + [zeros] * after, 1)

    for name in ("query", "key", "value", "direct"):
        arguments[name] = padded(arguments[name], 1, 1)
    arguments["source"] = padded(arguments["source"], 1, 0)
    arguments["mark"] = padded(arguments["mark"], 0, 1)
    entering = torch.cat([initial.unsqueeze(1), initial.new_zeros(2, length, *initial.shape[1:])], 1)
    output, states = run(
        arguments,
        topology,
        initial_state=entering,
        return_last_state=True,
        scale=3**-0.5,
        implementation=implementation,
    )
    assert_same([output[:, 1:-1]], [expected], "output")
    assert_same([states[:, -1]], [expected_state], "state")


def grid_as_dag(x_size, y_size, without=()):
    """Topology of a grid, and of each edge (orientation, x, y) of its tail, of each line edge (name, x, y)."""
    node = {(x, y): x * y_size + y for x in range(x_size) for y in range(y_size)}
    edges, kinds = [], {}
    for (x, y), index in node.items():
        for kind, other in (("r", (x + 1, y)), ("d", (x, y + 1))):
            if other in node:
                kinds[(index, node[other])] = (kind, x, y, *other)
                edges.append((index, node[other]))
    joined = [
        (i, j)
        for i, first in enumerate(edges)
        for j, second in enumerate(edges)
        if first[1] == second[0] and kinds[second][0] + {"r": "l", "d": "u"}[kinds[first][0]] not in without
    ]
    topology = DagTopology.from_line_edges(len(node), edges, joined, mode="D" if without else "P")
    return topology, [kinds[tuple(edge)] for edge in topology.edges.tolist()]


@EACH
@pytest.mark.parametrize("mode", ["P", "dl", "ru"])
def test_grid_equals_plstm_2d(implementation, mode):
    x_size, y_size = 4, 3
    shape = (2, x_size, y_size)
    query, key, value = (torch.randn(*shape, size, 1, dtype=torch.float64) for size in (3, 3, 2))
    gates = {name: torch.randn(*shape, 1, 1, 1, dtype=torch.float64) for name in ("source_r", "source_d")}
    gates |= {name: torch.randn(*shape, 1, 1, 1, dtype=torch.float64) for name in ("mark_l", "mark_u")}
    gates |= {f"transition_{k}": 0.5 * torch.randn(*shape, 1, 1, dtype=torch.float64) for k in ("rl", "du", "dl", "ru")}
    direct = torch.randn(*shape, 1, 1, 1, 1, dtype=torch.float64)
    if mode != "P":
        gates[f"transition_{mode}"] = None
    expected = plstm_2d(query, key, value, direct=direct, **gates, scale=1.0)

    topology, kinds = grid_as_dag(x_size, y_size, () if mode == "P" else (mode,))
    source = torch.stack([gates[f"source_{kind}"][:, x, y] for kind, x, y, *_ in kinds], 1)
    mark = torch.stack([gates["mark_l" if kind == "r" else "mark_u"][:, x, y] for kind, *_, x, y in kinds], 1)
    transition = []
    for first, second in topology.line_edges.tolist():
        came = "l" if kinds[first][0] == "r" else "u"
        transition.append(gates[f"transition_{kinds[second][0]}{came}"][:, kinds[second][1], kinds[second][2]])
    nodes = [tensor.flatten(1, 2) for tensor in (query, key, value)]
    output = plstm_graph(
        *nodes, source, torch.stack(transition, 1), mark, direct.flatten(1, 2), topology, implementation=implementation
    )
    assert_same([output.view_as(expected)], [expected], "output")


@EACH
def test_functional_transforms(implementation):
    topology = random_dag(6)
    arguments = draw_arguments(topology)
    tensors = tuple(tensor.detach() for tensor in arguments.values())

    def run_with(chosen):
        def function(*x):
            return run(dict(zip(arguments, x, strict=True)), topology, implementation=chosen, return_last_state=True)

        return function

    def loss(chosen):
        return lambda *x: sum(result.square().sum() for result in run_with(chosen)(*x))

    every, tangents = tuple(range(8)), tuple(torch.randn_like(tensor) for tensor in tensors)
    expected = jvp(run_with("parallel"), tensors, tangents)
    found = jvp(run_with(implementation), tensors, tangents)
    assert_same(found[0], expected[0], "output")
    assert_same(found[1], expected[1])
    assert_same(grad(loss(implementation), every)(*tensors), grad(loss("parallel"), every)(*tensors))
    assert_same([hessian(loss(implementation), 4)(*tensors)], [hessian(loss("parallel"), 4)(*tensors)])
    stacked = tuple(torch.stack([tensor, 2 * tensor]) for tensor in tensors)
    batched = vmap(run_with(implementation))(*stacked)
    one_by_one = [run_with(implementation)(*(tensor[i] for tensor in stacked)) for i in range(2)]
    assert_same(batched, [torch.stack(results) for results in zip(*one_by_one, strict=True)], "output")


@FORMS
def test_second_derivatives(implementation, j):
    topology = random_dag(4)
    arguments = draw_arguments(topology, j, heads=1)

    def function(*tensors):
        named = dict(zip(arguments, tensors, strict=True))
        return run(named, topology, implementation=implementation, return_last_state=True)

    assert gradgradcheck(function, tuple(arguments.values()), fast_mode=True)


@EACH
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_states_and_gradients_of_other_dtypes(implementation, dtype):
    topology = random_dag(8)
    exact = draw_arguments(topology, dtype=getattr(torch, dtype))
    exact["initial_state"] = exact["initial_state"].detach().float().requires_grad_()
    double = {name: tensor.detach().double().requires_grad_() for name, tensor in exact.items()}
    output, states = run(exact, topology, implementation=implementation, return_last_state=True)
    expected, expected_states = run(double, topology, implementation=implementation, return_last_state=True)
    assert output.dtype == getattr(torch, dtype)
    assert states.dtype == torch.float32
    assert_same([output], [expected], "output", dtype)
    assert_same([states], [expected_states], "state", dtype)


@EACH
def test_backward_twice_and_autocast(implementation):
    topology = random_dag(8)
    arguments = draw_arguments(topology, dtype=torch.float32, initial=False)
    output = run(arguments, topology, implementation=implementation)
    first = torch.autograd.grad(output.sum(), list(arguments.values()), retain_graph=True)
    assert_same(torch.autograd.grad(output.sum(), list(arguments.values())), first, "gradient", "float32")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = run(arguments, topology, implementation=implementation)
    assert_same([again], [output], "output", "float32")
    assert_same(torch.autograd.grad(again.sum(), list(arguments.values())), first, "gradient", "float32")


def test_deep_graph_needs_no_recursion():
    length = 3000
    topology = DagTopology.from_edges(length, list(pairwise(range(length))))
    arguments = draw_arguments(topology, heads=1, initial=False)
    output = run(arguments, topology, implementation="recurrent")
    assert all(torch.isfinite(gradient).all() for gradient in gradients((output,), arguments))


def test_wrong_number_of_nodes():
    topology = random_dag(6)
    arguments = draw_arguments(random_dag(7), initial=False)
    arguments |= {name: draw_arguments(topology)[name] for name in ("source", "transition", "mark")}
    for _ in range(2):  # also once the schedule is known
        with pytest.raises(ValueError, match=r"^query: expected \[.*N=6.*\], got \(2, 7, 3\)"):
            run(arguments, topology)
        run(draw_arguments(topology, initial=False), topology)


@pytest.mark.parametrize("implementation", ["recurrent", "parallel"])
def test_one_topology_serves_several_numbers_of_nodes(implementation):
    topology = random_dag(6)
    bare = type("Bare", (), {"edges": topology.edges, "line_edges": topology.line_edges})()
    whole = draw_arguments(topology, initial=False)
    of_nodes = ("query", "key", "value", "direct")
    expected = run(whole, topology, implementation=implementation)
    for more in (0, 3, 1, 0):
        padded = {n: torch.cat([whole[n], whole[n][:, :more]], 1) if n in of_nodes else whole[n] for n in whole}
        assert_same([run(padded, bare, implementation=implementation)[:, :6]], [expected], "output")
    fewer = {n: whole[n][:, :5] if n in of_nodes else whole[n] for n in whole}
    with pytest.raises(ValueError, match=r"^topology\.edges: expected nodes from 0 to N-1=4"):
        run(fewer, bare, implementation=implementation)


def test_auto_chooses_by_size():
    assert resolve_implementation("auto", 30, False) == "parallel"
    assert resolve_implementation("auto", 30, True) == "recurrent"
    assert resolve_implementation("auto", 100_000, False) == "recurrent"
    assert resolve_implementation("parallel", 100_000, True) == "parallel"
