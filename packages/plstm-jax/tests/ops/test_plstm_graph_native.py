"""The graph op in native kernels: widths, transforms, plans that are traced, platforms, exports, what they refuse."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beside_the_loop import assert_same, assert_same_transforms, both
from jax import export

import plstm_native
from plstm_config.shapes import PLSTM_GRAPH
from plstm_config.topology import DagTopology
from plstm_jax.ops import plan_graph, plstm_graph
from plstm_jax.ops._plstm_graph import op
from plstm_testing.conformance.draws import random_dag
from plstm_testing.tolerances import assert_close

pytestmark = pytest.mark.skipif(plstm_native.unavailable() is not None, reason=f"{plstm_native.unavailable()}")
BATCH = DagTopology.batch([random_dag(5, 1), DagTopology.from_edges(3, []), random_dag(9, 2), random_dag(7, 3)])


def drawn(topology=BATCH, dtype="float64", heads=2, dk=3, dv=2, initial=True):
    random = np.random.default_rng(0)
    sizes = {"H": heads, "N": topology.num_nodes, "E": len(topology.edges), "L": len(topology.line_edges)}
    sizes |= {"DK": dk, "DV": dv}
    shapes = {name: [sizes[letter] for letter in layout] for name, layout in PLSTM_GRAPH.items()}
    shapes |= {"initial_state": [heads, sizes["E"], dk, dv]} if initial else {}
    return {name: jnp.asarray(0.5 * random.standard_normal(shape), dtype) for name, shape in shapes.items()}


def call(implementation, topology=BATCH, **keywords):
    return lambda arguments: plstm_graph(**arguments, topology=topology, implementation=implementation, **keywords)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("heads", "dk", "dv"), [(1, 1, 1), (3, 5, 19), (2, 17, 40)])
@pytest.mark.parametrize("states", [False, True])
def test_agrees_with_the_levels(dtype, heads, dk, dv, states):
    arguments = drawn(dtype=dtype, heads=heads, dk=dk, dv=dv, initial=states)
    pair = (both(call(form, return_last_state=states))(arguments) for form in ("native", "recurrent"))
    assert_same(*pair, dtype)


def test_line_edges_may_stand_in_any_order():
    topology = random_dag(9, 2)
    order = np.random.default_rng(0).permutation(len(topology.line_edges))
    shuffled = type("Bare", (), {"edges": topology.edges, "line_edges": topology.line_edges[order]})()
    arguments = drawn(topology)
    mixed = arguments | {"transition": arguments["transition"][:, order]}
    (results, found), (expected, gradients) = (
        both(call("native", graph))(given) for graph, given in ((shuffled, mixed), (topology, arguments))
    )
    assert_same(results, expected)
    gradients["transition"] = gradients["transition"][:, order]
    assert_same(found, gradients)


def test_what_is_not_finite_reaches_what_it_reaches_in_the_levels():
    clean = drawn()
    for name in (*PLSTM_GRAPH, "initial_state"):
        arguments = clean | {name: clean[name].at[1, 1].set(jnp.nan)}
        found, expected = (jax.jit(call(form, return_last_state=True))(arguments) for form in ("native", "recurrent"))
        for one, other in zip(found, expected, strict=True):
            finite = np.isfinite(other)
            assert np.array_equal(np.isfinite(one), finite), name
            assert_close(one[finite], other[finite])


def test_transforms_of_transforms(jit):
    arguments = drawn(random_dag(5, 1), heads=1)
    assert_same_transforms(lambda form: call(form, random_dag(5, 1)), arguments, jit)


@pytest.mark.parametrize("states", [False, True])
def test_vmap_over_some_arguments_and_any_axis(jit, states):
    arguments = drawn(initial=states)
    several = jnp.stack([arguments["value"], -arguments["value"], jnp.cos(arguments["value"])], -1)

    def gradients(form):
        def of(value):
            return jax.grad(lambda x: jnp.sum(call(form)(x) ** 2))(arguments | {"value": value})

        return jit(jax.vmap(of, in_axes=-1))(several)

    assert_same(gradients("native"), gradients("recurrent"))


def test_vmap_over_plans(jit):
    """Graphs of one size, each with a topology of its own."""
    plans = [plan_graph(DagTopology.from_edges(4, edges)) for edges in ([(0, 1), (1, 3)], [(0, 2), (2, 3)])]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *plans)
    arguments = drawn(DagTopology.from_edges(4, [(0, 1), (1, 3)]))

    def gradients(form):
        def of(plan):
            return jax.value_and_grad(lambda x: jnp.sum(call(form, plan)(x) ** 2))(arguments)

        return jit(jax.vmap(of))(stacked)

    assert_same(gradients("native"), gradients("recurrent"))


@pytest.mark.parametrize("states", [False, True])
def test_padding_hands_on_what_enters(jit, states):
    """Whatever stands in padded places, and whatever is said of it."""
    plan = plan_graph(BATCH)
    arguments = drawn(initial=states)
    pad = {"N": plan.pad_nodes, "E": plan.pad_edges, "L": plan.pad_line_edges}
    padded = {n: pad[{**PLSTM_GRAPH, "initial_state": "HE"}[n][1]](array) for n, array in arguments.items()}
    assert padded["source"].shape[1] > arguments["source"].shape[1]
    found, expected = (both(call(form, plan, return_last_state=states))(padded) for form in ("native", "recurrent"))
    assert_same(found, expected)


def test_what_is_no_topology_is_refused_while_it_runs():
    plan = plan_graph(random_dag(6))
    arguments = drawn(random_dag(6))
    pad = {"N": plan.pad_nodes, "E": plan.pad_edges, "L": plan.pad_line_edges}
    padded = {n: pad[{**PLSTM_GRAPH, "initial_state": "HE"}[n][1]](array) for n, array in arguments.items()}
    wrong = {
        "edges: expected indices of nodes": {"edges": plan.edges - 1},
        "edges: expected both nodes of an edge in one graph": {
            "node_graph": np.arange(len(plan.node_graph), dtype="i4")
        },
        "line_edges: expected indices of edges": {"line_edges": plan.line_edges - plan.edges.shape[0]},
        "edges: expected no edge from a node to itself": {"edges": plan.edges[:, [0, 0]]},
        "line_edges: expected edges in topological order": {"line_edges": plan.line_edges[:, ::-1].copy()},
        "line_edges: expected edges that meet in a node": {"edges": plan.edges[:, ::-1].copy()},
        "graphs: expected their number": {"num_graphs": 2**62},  # for which no memory can be counted, either
    }
    for message, changed in wrong.items():
        with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match=message):
            jax.block_until_ready(call("native", replace(plan, **changed))(padded))


def test_what_is_lowered_for_other_platforms_or_exported_is_made_of_operations_of_jax():
    arguments = drawn()
    traced = both(call("auto", return_last_state=True)).trace(arguments)
    assert "plstm_graph_gradients" in traced.lower().as_text()
    assert "custom_call" not in traced.lower(lowering_platforms=("cuda",)).as_text()
    exported = export.export(both(call("auto")))(arguments)
    assert "custom_call" not in exported.mlir_module()
    assert_same(exported.call(arguments), both(call("native"))(arguments))


def test_inside_of_a_shard_map(jit):
    """What differs from device to device and what does not are of different types there."""
    arguments = drawn()
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = {name: jax.sharding.PartitionSpec(None if name == "mark" else "batch") for name in arguments}

    def loss(arguments):
        return jax.lax.psum(jnp.sum(call("native")(arguments) ** 2), "batch")

    found = jit(jax.shard_map(jax.grad(loss), mesh=mesh, in_specs=(specs,), out_specs=specs))(arguments)
    assert_same(found, jit(jax.grad(lambda x: jnp.sum(call("recurrent")(x) ** 2)))(arguments))


@pytest.mark.parametrize("topology", [DagTopology.from_edges(3, []), DagTopology.from_edges(0, []), BATCH])
def test_empty_axes(topology):
    arguments = drawn(topology, heads=0 if topology is BATCH else 2)
    assert_same(*(both(call(form, topology, return_last_state=True))(arguments) for form in ("native", "recurrent")))


def test_auto_takes_it_for_scalar_gates(monkeypatch):
    def resolved(name="auto", edges=5, states=False, **sizes):
        return op.resolve(name, edges, states, sizes, None)

    assert resolved("auto", 5, True) == resolved(JT=1, JO=1) == resolved("native") == "native"
    assert (resolved(JT=2), resolved(edges=999, JT=2)) == ("parallel", "recurrent")
    with pytest.raises(ValueError, match="'native': the graph op has native kernels for J dimensions of 1, got JT=2"):
        resolved("native", JT=2)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with pytest.raises(ValueError, match="'native': native kernels run on the CPU, got tpu"):
        resolved("native")
    assert resolved() == "parallel"
