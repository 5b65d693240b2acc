"""Calls: graphs, caches, steps, and the errors that every backend has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plstm_config as configs
import plstm_jax
import plstm_linen
from plstm_config.topology import DagTopology
from plstm_testing.tolerances import assert_close

TYPES = {"dtype": "float64", "param_dtype": "float64"}
PATH = DagTopology.from_edges(3, [(0, 1), (1, 2)])
LAYER = configs.pLSTM1DLayerConfig(input_dim=8, num_heads=2, JT=1, JV=1, JO=1, **TYPES)
GRID = configs.pLSTM2DLayerFusedConfig(input_dim=8, num_heads=2, **TYPES)
GRAPH = configs.pLSTMGraphLayerConfig(input_dim=8, num_heads=2, max_edges=2, **TYPES)


def ready(config, **options):
    params = plstm_jax.init(config, jax.random.key(0))
    module = plstm_linen.build(config, **options)
    arrays = plstm_jax.flatten(params)
    found = plstm_linen.from_canonical(config, arrays, scan_blocks=module.scan_blocks)
    return module, {"params": found} if found else {}


@pytest.mark.parametrize("scan_blocks", [False, True])
def test_steps_are_the_full_pass(language, jit, scan_blocks):
    module, variables = ready(language, scan_blocks=scan_blocks)
    tokens = jnp.array([[3, 1, 10, 0], [5, 5, 2, 7]])
    logits, after = jit(lambda v: module.apply(v, tokens, return_cache=True))(variables)
    step = jit(lambda v, token, cache: module.apply(v, token, cache, method="step"))
    cache, outputs = module.init_cache(2), []
    for t in range(4):
        output, cache = step(variables, tokens[:, t], cache)
        outputs.append(output)
    assert jax.tree.structure(cache) == jax.tree.structure(after)
    for one, other in zip(
        jax.tree.leaves((jnp.stack(outputs, 1), cache)), jax.tree.leaves((logits, after)), strict=True
    ):
        assert_close(one, other, "float64", "module")
    first, cache = jit(lambda v: module.apply(v, tokens[:, :3], return_cache=True))(variables)
    rest = jit(lambda v, cache: module.apply(v, tokens[:, 3:], cache=cache))(variables, cache)
    assert_close(jnp.concatenate([first, rest], 1), logits, "float64", "module")


def test_packed_sequences_are_separate_ones(jit):
    module, variables = ready(LAYER)
    x = jax.random.normal(jax.random.key(9), (2, 7, 8), jnp.float64)
    packed = jit(lambda x: module.apply(variables, x, cu_seqlens=np.array([0, 3, 7])))(x)
    pieces = [jit(lambda x: module.apply(variables, x))(x[:, part]) for part in (slice(0, 3), slice(3, 7))]
    assert_close(packed, jnp.concatenate(pieces, 1), "float64", "module")


def test_greedy_text_is_the_most_likely_one(language, jit):
    module, variables = ready(language)
    prompt = jnp.array([[3, 1, 4], [1, 5, 9]])
    tokens = plstm_linen.generate(module, variables, prompt, 5, temperature=0.0)
    logits = jit(module.apply)(variables, tokens[:, :-1])
    np.testing.assert_array_equal(jnp.argmax(logits, -1)[:, 2:], tokens[:, 3:])
    scanned, stacked = ready(language, scan_blocks=True)
    np.testing.assert_array_equal(plstm_linen.generate(scanned, stacked, prompt, 5, temperature=0.0), tokens)
    drawn = [plstm_linen.generate(module, variables, prompt, 6, key=jax.random.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not jnp.array_equal(drawn[0], drawn[2])
    with pytest.raises(ValueError, match="key: expected a key for random numbers"):
        plstm_linen.generate(module, variables, prompt, 5)


def test_a_model_that_reads_from_both_ends_continues_nothing(language):
    both = configs.change(language, {"block_stack.block.interaction_module.bidirectional": True})
    module, prompt = plstm_linen.build(both), jnp.array([[3, 1, 4]])
    for name, call in (
        ("generate", lambda: plstm_linen.generate(module, {}, prompt, 2, temperature=0.0)),
        ("init_cache", lambda: module.init_cache(1)),
        ("step", lambda: module.apply({}, prompt[:, 0], {}, method="step")),
    ):
        with pytest.raises(ValueError, match=f"^{name}: expected a causal module, got pLSTMLMModel with bidirectional"):
            call()


def test_graphs_come_as_topologies_edges_or_arrays(jit):
    module, variables = ready(GRAPH)
    x = jax.random.normal(jax.random.key(0), (3, 8), jnp.float64)
    by_topology = jit(lambda x: module.apply(variables, x, PATH))(x)
    by_edges = jit(lambda x: module.apply(variables, x, np.array([[0, 1], [1, 2]])))(x)
    padded = plstm_jax.pad_graph(PATH)
    by_arrays = jit(module.apply)(variables, padded.pad_nodes(x), padded)[:3]
    assert_close(by_edges, by_topology, "float64", "module")
    assert_close(by_arrays, by_topology, "float64", "module")


def test_blocks_of_a_graph_model_stay_apart(cases, jit):
    case = cases["pLSTMGraphModelConfig"]
    outputs = []
    for scan_blocks in (False, True):
        module, variables = ready(case.config, scan_blocks=scan_blocks, remat=scan_blocks)
        assert "blocks_0" in variables["params"]["block_stack"]
        outputs.append(jit(lambda v, module=module: module.apply(v, *case.inputs.values()))(variables))
    np.testing.assert_array_equal(*outputs)


WRONG = {
    "features": (LAYER, (jnp.ones((1, 2, 7)),), {}, ValueError, r"x: expected \[B, T, D\] with D=8"),
    "no array": (LAYER, (None,), {}, TypeError, "x: expected an array, got NoneType"),
    "cache entries": (LAYER, (jnp.ones((1, 2, 8)),), {"cache": {}}, ValueError, "cache: expected the entries"),
    "borders": (LAYER, (jnp.ones((1, 2, 8)),), {"cu_seqlens": [0, 3]}, ValueError, "cu_seqlens"),
    "cache on grids": (
        GRID,
        (jnp.ones((1, 2, 2, 8)),),
        {"return_cache": True},
        ValueError,
        "return_cache: expected a module with one time axis",
    ),
    "step on grids": (GRID, (jnp.ones((1, 8)), {}), {"method": "step"}, ValueError, "step: expected a module with one"),
    "no graph": (GRAPH, (jnp.ones((3, 8)),), {}, TypeError, "graph: expected a DagTopology or an edge_index"),
    "graph": (LAYER, (jnp.ones((3, 2, 8)), PATH), {}, ValueError, "graph: expected None"),
    "nodes": (GRAPH, (jnp.ones((4, 8)), PATH), {}, ValueError, "expected a graph of N=4 nodes"),
    "kind of graph": (GRAPH, (jnp.ones((3, 8)), "path"), {}, TypeError, "got str"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_are_refused_when_traced(name):
    config, inputs, options, error, message = WRONG[name]
    module, variables = ready(config)
    with pytest.raises(error, match=message):
        jax.eval_shape(lambda v: module.apply(v, *inputs, **options), variables)


def test_a_module_on_grids_has_no_cache():
    with pytest.raises(ValueError, match="init_cache: expected a module with one time axis"):
        plstm_linen.build(GRID).init_cache(1)
