"""The graph op against the reference, under the transforms of JAX, and padded to shared shapes."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import plstm_native
from plstm_config.shapes import PLSTM_GRAPH, PLSTM_GRAPH_STATE_TRACKING
from plstm_config.topology import DagTopology
from plstm_jax.ops import plan_graph, plstm_1d, plstm_2d, plstm_graph
from plstm_jax.ops._plstm_graph import op
from plstm_testing import reference
from plstm_testing.conformance.cases import SCALAR, STATE_TRACKING
from plstm_testing.conformance.draws import random_dag
from plstm_testing.tolerances import assert_close

NATIVE = pytest.param("native", marks=pytest.mark.skipif(plstm_native.unavailable() is not None, reason="no kernels"))
IN_JAX = pytest.mark.parametrize("implementation", ["recurrent", "parallel"])
EACH = pytest.mark.parametrize("implementation", ["recurrent", "parallel", NATIVE])
ALL = pytest.mark.parametrize(
    ("implementation", "j"),
    [
        *((form, j) for form in ("recurrent", "parallel") for j in (None, STATE_TRACKING)),
        pytest.param("native", None, marks=NATIVE.marks),
    ],
    ids=lambda value: value if isinstance(value, str) else "scalar" if value is None else "state_tracking",
)


@st.composite
def dags(draw):
    """Graphs of 7 or 8 nodes and 9 to 12 edges: few shapes, since each is compiled."""
    size = draw(st.integers(7, 8))
    pairs = [(a, b) for b in range(size) for a in range(b)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, min_size=9, max_size=12))
    return DagTopology.from_edges(size, edges, mode=draw(st.sampled_from("PD")))


def draw_arguments(topology, j=None, heads=2, seed=0, initial=True):
    random = np.random.default_rng(seed)
    sizes = {"H": heads, "N": topology.num_nodes, "E": len(topology.edges), "L": len(topology.line_edges)}
    sizes |= {"DK": 3, "DV": 2}
    layouts, state = PLSTM_GRAPH, ["H", "E", "DK", "DV"]
    if j is not None:
        sizes |= dict(zip(("JQ", "JK", "JV", "JT", "JO"), j, strict=True))
        layouts, state = PLSTM_GRAPH_STATE_TRACKING, [*state, "JT"]
    shapes = {name: [sizes[letter] for letter in layout] for name, layout in layouts.items()}
    shapes |= {"initial_state": [sizes[letter] for letter in state]} if initial else {}
    return {
        name: jnp.asarray((0.4 if name == "transition" else 1.0) * random.standard_normal(shape))
        for name, shape in shapes.items()
    }


def assert_same(actual, expected, kind="gradient"):
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert_close(one, other, "float64", kind)


@ALL
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(topology=dags())
def test_agrees_with_the_reference(implementation, j, jit, topology):
    arguments = draw_arguments(topology, j)
    arrays = {name: np.asarray(array) for name, array in arguments.items()}
    results = reference.plstm_graph(**arrays, topology=topology, return_last_state=True)
    cotangent, cotangent_state = (np.linspace(-1, 1, part.size).reshape(part.shape) for part in results)

    def run(arguments):
        return plstm_graph(**arguments, topology=topology, return_last_state=True, implementation=implementation)

    def differentiate(arguments):
        found, pull_back = jax.vjp(run, arguments)
        alone = plstm_graph(**arguments, topology=topology, implementation=implementation)
        return found, alone, pull_back((jnp.asarray(cotangent), jnp.asarray(cotangent_state)))[0]

    found, alone, gradients = jit(differentiate)(arguments)
    assert_same((*found, alone), (*results, results[0]), "output")
    truth = reference.plstm_graph_gradients(
        **arrays, topology=topology, cotangent=cotangent, cotangent_state=cotangent_state
    )
    assert_same(gradients, {name: truth[name] for name in gradients})


@ALL
def test_batch_equals_graphs_one_by_one(implementation, j, jit):
    parts = [random_dag(5, 1), DagTopology.from_edges(3, []), random_dag(7, 2)]
    batch = DagTopology.batch(parts)
    arguments = draw_arguments(batch, j, initial=False)

    def run(arguments, topology):
        return jit(lambda x: plstm_graph(**x, topology=topology, implementation=implementation))(arguments)

    output = run(arguments, batch)
    first = {"N": 0, "E": 0, "L": 0}
    for part in parts:
        sizes = {"N": part.num_nodes, "E": len(part.edges), "L": len(part.line_edges)}
        last = {letter: first[letter] + sizes[letter] for letter in sizes}
        own = {
            name: array[:, first[PLSTM_GRAPH[name][1]] : last[PLSTM_GRAPH[name][1]]]
            for name, array in arguments.items()
        }
        expected = run(own, part)
        assert_same(output[:, first["N"] : last["N"]], expected, "output")
        first = last


@ALL
def test_path_equals_plstm_1d(implementation, j, jit):
    length, random = 6, np.random.default_rng(0)
    dim_q, dim_k, dim_v, dim_t, dim_o = j or SCALAR
    shapes = [(3, dim_q), (3, dim_k), (2, dim_v), (dim_t, dim_k, dim_v), (dim_t, dim_t), (dim_o, dim_q, dim_t)]
    shapes.append((dim_o, dim_q, dim_k, dim_v))
    sequence = [jnp.asarray(0.5 * random.standard_normal((2, length, *shape))) for shape in shapes]
    expected = jit(plstm_1d)(*sequence)
    topology = DagTopology.from_edges(length, list(pairwise(range(length))))

    def run(query, key, value, source, transition, mark, direct):
        gates = source[:, :-1], transition[:, 1:-1], mark[:, 1:], direct
        return plstm_graph(query, key, value, *gates, topology, scale=3**-0.5, implementation=implementation)

    output = jit(run)(*sequence)
    assert_same(output, expected, "output")


@EACH
@pytest.mark.parametrize("missing", [None, "dl", "ru"])
def test_grid_equals_plstm_2d(implementation, missing, jit):
    x_size, y_size, random = 4, 3, np.random.default_rng(1)
    node = {(x, y): x * y_size + y for x in range(x_size) for y in range(y_size)}
    kinds = {}
    for (x, y), index in node.items():
        for kind, other in (("r", (x + 1, y)), ("d", (x, y + 1))):
            if other in node:
                kinds[index, node[other]] = (kind, x, y, *other)
    edges, came = list(kinds), {"r": "l", "d": "u"}
    joined = [
        (i, k)
        for i, first in enumerate(edges)
        for k, second in enumerate(edges)
        if first[1] == second[0] and kinds[second][0] + came[kinds[first][0]] != missing
    ]
    topology = DagTopology.from_line_edges(len(node), edges, joined, mode="D" if missing else "P")

    def draw(*shape):
        return jnp.asarray(random.standard_normal((2, x_size, y_size, *shape)))

    query, key, value, direct = draw(3, 1), draw(3, 1), draw(2, 1), draw(1, 1, 1, 1)
    gates = {name: draw(1, 1, 1) for name in ("source_r", "source_d", "mark_l", "mark_u")}
    gates |= {f"transition_{name}": 0.5 * draw(1, 1) for name in ("rl", "du", "dl", "ru")}
    gates |= {f"transition_{missing}": None} if missing else {}
    inputs = {"query": query, "key": key, "value": value, "direct": direct}
    expected = jit(lambda x: plstm_2d(**x, scale=1.0, implementation="parallel"))(inputs | gates)
    ordered = [kinds[tuple(edge)] for edge in topology.edges.tolist()]
    source = jnp.stack([gates[f"source_{kind}"][:, x, y] for kind, x, y, *_ in ordered], 1)
    mark = jnp.stack([gates[f"mark_{came[kind]}"][:, x, y] for kind, *_, x, y in ordered], 1)
    transition = [
        gates[f"transition_{ordered[second][0]}{came[ordered[first][0]]}"][:, ordered[second][1], ordered[second][2]]
        for first, second in topology.line_edges.tolist()
    ]
    flat = [array.reshape(2, len(node), *array.shape[3:]) for array in (query, key, value, direct)]
    given = (*flat[:3], source, jnp.stack(transition, 1), mark, flat[3])
    output = jit(lambda *x: plstm_graph(*x, topology, implementation=implementation))(*given)
    assert_same(output.reshape(expected.shape), expected, "output")


@EACH
def test_transforms(implementation, jit):
    topology = random_dag(6)
    arguments = draw_arguments(topology)
    direction = draw_arguments(topology, seed=1)

    def loss(form):
        def function(arguments):
            output, states = plstm_graph(**arguments, topology=topology, return_last_state=True, implementation=form)
            return jnp.sum(jnp.sin(output)) + jnp.sum(states**2)

        return function

    def transform(function):
        return jit(
            lambda x, v: (
                jax.jvp(function, (x,), (v,)),
                jax.jvp(jax.grad(jax.checkpoint(function)), (x,), (v,)),
                jax.vmap(function)(jax.tree.map(lambda a, b: jnp.stack([a, b]), x, v)),
                (function(x), function(v)),
            )
        )(arguments, direction)

    found = transform(loss(implementation))
    assert_same(found, transform(loss("parallel" if implementation == "recurrent" else "recurrent")))
    assert_same(found[2], jnp.stack(found[3]), "output")


@EACH
def test_graphs_of_similar_size_share_a_program(implementation):
    topologies = [DagTopology.from_edges(n, list(pairwise(range(n)))) for n in (9, 11, 12, 13)]
    shapes = [str(jax.tree.map(np.shape, plan_graph(topology))) for topology in topologies]
    assert len(set(shapes)) == 3
    assert shapes[1] == shapes[2]
    compiled = []
    for topology in topologies[1:]:
        arguments = draw_arguments(topology, initial=False)
        before = op._run._cache_size()
        output = plstm_graph(**arguments, topology=topology, implementation=implementation)
        compiled.append(op._run._cache_size() - before)
        assert output.shape == (2, topology.num_nodes, 2)
    assert compiled == [1, 0, 1]


@EACH
def test_a_plan_is_an_argument_of_a_jitted_function(implementation):
    traced = []

    @jax.jit
    def run(plan, arguments):
        traced.append(plan)
        return plstm_graph(**arguments, topology=plan, implementation=implementation)

    for num_nodes in (5, 6):
        topology = DagTopology.from_edges(num_nodes, [(0, 1), (1, 2), (2, 4), (1, 3), (3, 4)])
        arguments = draw_arguments(topology, initial=False)
        plan = plan_graph(topology)
        pad = {"N": plan.pad_nodes, "E": plan.pad_edges, "L": plan.pad_line_edges}
        padded = {name: pad[PLSTM_GRAPH[name][1]](array) for name, array in arguments.items()}
        poisoned = {
            name: jnp.asarray(array).at[:, arguments[name].shape[1] :].set(7.0) for name, array in padded.items()
        }
        expected = plstm_graph(**arguments, topology=topology, implementation="recurrent")
        assert_same(run(plan, padded)[:, :num_nodes], expected, "output")
        assert_same(run(plan, poisoned)[:, :num_nodes], expected, "output")
    assert len(traced) == 1


def test_a_deep_graph_needs_no_unrolling(jit):
    topology = DagTopology.from_edges(2000, list(pairwise(range(2000))))
    arguments = draw_arguments(topology, heads=1, initial=False)
    gradient = jit(jax.grad(lambda x: jnp.sum(plstm_graph(**x, topology=topology))))(arguments)
    assert all(jnp.isfinite(part).all() for part in gradient.values())


def test_one_topology_serves_several_numbers_of_nodes():
    topology = random_dag(6)
    bare = type("Bare", (), {"edges": topology.edges, "line_edges": topology.line_edges})()
    arguments = draw_arguments(topology, initial=False)
    expected = plstm_graph(**arguments, topology=topology)
    for more in (0, 3, 0):
        widths = {name: [(0, 0), (0, more), *[(0, 0)] * (array.ndim - 2)] for name, array in arguments.items()}
        padded = {n: jnp.pad(a, widths[n]) if PLSTM_GRAPH[n][1] == "N" else a for n, a in arguments.items()}
        assert_same(plstm_graph(**padded, topology=bare)[:, :6], expected, "output")
    fewer = {n: a[:, :5] if PLSTM_GRAPH[n][1] == "N" else a for n, a in arguments.items()}
    with pytest.raises(ValueError, match=r"^topology\.edges: expected nodes from 0 to N-1=4"):
        plstm_graph(**fewer, topology=bare)


def test_what_is_refused():
    topology = random_dag(5)
    with pytest.raises(ValueError, match=r"^array: expected at most 6 nodes, as many as the plan has, got 7"):
        plan_graph(topology).pad_nodes(jnp.zeros((1, 7)))
    with pytest.raises(ValueError, match=r"^num_nodes: expected a number"):
        plan_graph(type("Bare", (), {"edges": topology.edges, "line_edges": topology.line_edges})())
    with pytest.raises(ValueError, match=r"^implementation: expected one of 'auto', 'recurrent', 'parallel'"):
        plstm_graph(**draw_arguments(topology, initial=False), topology=topology, implementation="chunkwise")


@IN_JAX
def test_no_program_calls_lapack(implementation):
    """On CPU, two batched calls of it that run at once may never end."""
    topology = random_dag()
    arguments = draw_arguments(topology)

    def loss(arguments):
        return jnp.sum(plstm_graph(**arguments, topology=topology, implementation=implementation) ** 2)

    assert "custom_call" not in jax.jit(jax.grad(loss)).lower(arguments).as_text()
