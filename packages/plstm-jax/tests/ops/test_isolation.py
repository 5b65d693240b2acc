"""What is not finite reaches nothing that does not depend on it, whatever the transform; arguments of unusual kinds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import sparse

from plstm_config.topology import DagTopology
from plstm_jax.ops import plstm_1d, plstm_graph
from plstm_jax.ops._plstm_graph import plan_graph
from plstm_testing import reference
from plstm_testing.tolerances import assert_close

MATRICES = {"JQ": 2, "JV": 2, "JT": 3, "JO": 2}
KINDS = pytest.mark.parametrize("sizes", [{}, MATRICES], ids=["scalar", "matrices"])
EDGES = [(0, 1), (1, 2), (0, 2), (2, 4), (3, 4)]


@KINDS
@pytest.mark.parametrize("name", ["query", "key", "value", "source", "transition", "mark", "direct"])
def test_a_step_reaches_no_earlier_one(draw, jit, sizes, name):
    arguments = draw("plstm_1d", T=23, **sizes)
    expected = reference.plstm_1d(**arguments)
    arguments[name] = arguments[name].at[1, 13].set(jnp.nan)
    run = jit(lambda arguments: plstm_1d(**arguments, implementation="chunkwise", chunk_size=4))
    output = run(arguments)
    assert_close(output[0], expected[0])
    assert_close(output[1, :13], expected[1, :13])
    assert not np.isfinite(output[1, 13:]).all()


@KINDS
def test_rows_of_a_vmap_are_apart(draw, jit, sizes):
    arguments = draw("plstm_1d", T=9, **sizes)
    stacked = {name: jnp.stack([array, array]) for name, array in arguments.items()}
    stacked["value"] = stacked["value"].at[0, :, 5].set(jnp.nan)
    run = jit(jax.vmap(lambda arguments: plstm_1d(**arguments, implementation="chunkwise", chunk_size=4)))
    output, expected = run(stacked), reference.plstm_1d(**arguments)
    assert_close(output[1], expected)
    assert_close(output[0, :, :5], expected[:, :5])


def test_a_sum_that_overflows_is_no_reason(draw):
    arguments = {name: array.astype(jnp.float32) for name, array in draw("plstm_1d", T=9, DV=2).items()}
    arguments["value"] = jnp.full_like(arguments["value"], 3e38)
    arguments["key"] = 1e-38 * arguments["key"]
    output = plstm_1d(**arguments, implementation="chunkwise", chunk_size=4)
    assert np.isfinite(output).all()


def graph_arguments(topology, heads=2):
    random = np.random.default_rng(0)
    nodes, edges, lines = topology.num_nodes, len(topology.edges), len(topology.line_edges)
    shapes = [(nodes, 3), (nodes, 3), (nodes, 2), (edges,), (lines,), (edges,), (nodes,)]
    return [jnp.asarray(0.5 * random.standard_normal((heads, *shape))) for shape in shapes]


@pytest.mark.parametrize("states", [False, True])
def test_a_node_reaches_what_is_downstream_only(jit, states):
    parts = [DagTopology.from_edges(5, EDGES), DagTopology.from_edges(3, [(0, 1), (1, 2)])]
    topology = DagTopology.batch(parts)

    def loss(arrays):
        results = plstm_graph(*arrays, topology, implementation="parallel", return_last_state=states)
        return sum(jnp.sum(result) for result in jax.tree.leaves(results)), results

    run = jit(jax.grad(loss, has_aux=True))
    arrays = graph_arguments(topology)
    clean, clean_results = run(arrays)
    for argument in (0, 1, 2, 3, 4, 5, 6):
        spoilt = list(arrays)
        spoilt[argument] = spoilt[argument].at[1, 1].set(jnp.nan)
        found, results = run(spoilt)
        expected = reference.plstm_graph(*spoilt, topology, return_last_state=states)
        pairs = zip(results, expected, strict=True) if states else [(results, expected)]
        for result, right in pairs:
            whole = np.isfinite(right).all(axis=tuple(range(2, right.ndim)))
            assert_close(np.asarray(result)[whole], right[whole])
            assert not np.isfinite(np.asarray(result)[~whole]).all(axis=-1).any()
        for gradient, right in zip(found, clean, strict=True):
            second = np.s_[:, 5:] if gradient.shape[1] == 8 else np.s_[:, -1:]  # of the other graph
            assert_close(gradient[second], right[second], kind="gradient")
            assert_close(gradient[0], right[0], kind="gradient")
    assert np.isfinite(jax.tree.leaves(clean_results)[0]).all()


def test_plans_made_while_tracing_are_of_use_afterwards(jit):
    topology = DagTopology.from_edges(5, EDGES)
    arrays = graph_arguments(topology)
    traced = jit(lambda arrays: plstm_graph(*arrays, topology, implementation="recurrent"))(arrays)
    plan = plan_graph(topology)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(plan))
    with jax.enable_x64(False):
        plstm_graph(*(np.asarray(array, np.float32) for array in arrays), topology, implementation="recurrent")
    assert_close(plstm_graph(*arrays, topology, implementation="recurrent"), traced)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (sparse.BCOO.fromdense, "expected a dense array, got BCOO"),
        (lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), "expected a dense array, got ShapeDtypeStruct"),
        (lambda array: array.astype(jnp.float8_e5m2), "expected a dtype of 16 to 64 bits, got float8_e5m2"),
        (lambda array: array.astype(complex), "expected a floating-point dtype, got complex"),
        (lambda array: array > 0, "expected a floating-point dtype, got bool"),
    ],
    ids=["sparse", "described", "float8", "complex", "flags"],
)
def test_unusual_arrays_are_refused(draw, make, message):
    arguments = draw("plstm_1d", T=3)
    for name in ("query", "value", "direct"):
        with pytest.raises(TypeError, match=f"^{name}: {message}"):
            plstm_1d(**arguments | {name: make(arguments[name])})


@pytest.mark.parametrize("scale", [2, 10**30, np.array(0.5), np.float32(0.5), jnp.array(0.5), jnp.array(2)])
def test_scales_of_every_kind(draw, scale):
    arguments = draw("plstm_1d", T=3)
    assert_close(plstm_1d(**arguments, scale=scale), reference.plstm_1d(**arguments, scale=float(scale)))
