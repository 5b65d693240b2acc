"""Modules in plain JAX: sequences in pieces, step by step and packed, gradients, dropped paths, wrong calls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plstm_config as configs
import plstm_jax
from plstm_config.parameters import parameter_tree
from plstm_config.topology import DagTopology
from plstm_testing.tolerances import assert_within, tolerance

LIMIT = tolerance("float64", "output")
TYPES = {"dtype": "float64", "param_dtype": "float64"}


def drawn(config, seed=0):
    """Random parameters that let every part have an effect."""
    random = np.random.default_rng(seed)
    return plstm_jax.unflatten(
        {name: jnp.asarray(0.5 * random.standard_normal(item.shape)) for name, item in parameter_tree(config).items()}
    )


SEQUENCES = {
    "scalar": configs.pLSTM1DLayerConfig(input_dim=8, num_heads=2, JT=1, JV=1, JO=1, **TYPES),
    "matrix": configs.pLSTM1DLayerConfig(
        input_dim=8, num_heads=2, JT=2, JV=2, JO=2, DV=2, additional_convolution=False, **TYPES
    ),
    "stack": configs.BlockStackConfig(
        input_dim=8,
        num_blocks=2,
        block=configs.PreUpProjectionBlockConfig(
            projection_round=8,
            interaction_module=configs.pLSTM1DLayerConfig(num_heads=2, JT=1, JV=1, JO=1, **TYPES),
            **TYPES,
        ),
        **TYPES,
    ),
}


@pytest.fixture(params=SEQUENCES)
def sequence(request, jit):
    config = SEQUENCES[request.param]
    params = drawn(config)
    x = jax.random.normal(jax.random.key(9), (2, 7, 8), jnp.float64)
    whole = jit(lambda x: plstm_jax.apply(config, params, x, return_cache=True))(x)
    return config, params, x, whole


def assert_same(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert_within(one, other, LIMIT)


def test_steps_are_the_full_pass(sequence, jit):
    config, params, x, whole = sequence
    step = jit(lambda x, cache: plstm_jax.step(config, params, x, cache))
    cache, outputs = plstm_jax.init_cache(config, 2), []
    for t in range(x.shape[1]):
        output, cache = step(x[:, t], cache)
        outputs.append(output)
    assert jax.tree.structure(cache) == jax.tree.structure(whole[1])
    assert_same((jnp.stack(outputs, 1), cache), whole)


def test_pieces_are_the_whole(sequence, jit):
    config, params, x, whole = sequence
    piece = jit(lambda x, cache: plstm_jax.apply(config, params, x, cache=cache, return_cache=True))
    first, cache = piece(x[:, :3], plstm_jax.init_cache(config, 2))
    rest, cache = piece(x[:, 3:], cache)
    assert_same((jnp.concatenate([first, rest], 1), cache), whole)


@pytest.mark.parametrize("traced", [False, True])
def test_packed_sequences_are_separate_ones(sequence, jit, traced):
    config, params, x, _ = sequence
    borders = np.array([0, 3, 3, 7])
    if traced:
        packed = jit(lambda x, b: plstm_jax.apply(config, params, x, cu_seqlens=b, return_cache=True))(x, borders)
    else:
        packed = jit(lambda x: plstm_jax.apply(config, params, x, cu_seqlens=borders, return_cache=True))(x)
    single = jit(lambda x: plstm_jax.apply(config, params, x, return_cache=True))
    pieces = [single(x[:, :3]), single(x[:, 3:])]
    assert_same(packed[0], jnp.concatenate([output for output, _ in pieces], 1))
    for place, (_, cache) in zip((0, 2), pieces, strict=True):
        assert_same(jax.tree.map(lambda part, place=place: part[place::3], packed[1]), cache)
    empty = jax.tree.map(lambda part: part[1::3], packed[1])
    assert_same(empty, plstm_jax.init_cache(config, 2))


def test_packed_sequences_go_on_from_caches(jit):
    config = SEQUENCES["scalar"]
    params, borders = drawn(config), np.array([0, 3, 7])
    x = jax.random.normal(jax.random.key(9), (2, 7, 8), jnp.float64)
    run = jit(lambda x, cache: plstm_jax.apply(config, params, x, cache=cache, cu_seqlens=borders, return_cache=True))
    _, cache = run(x, plstm_jax.init_cache(config, 4))
    output, _ = run(x, cache)
    rest = jit(lambda x, cache: plstm_jax.apply(config, params, x, cache=cache))
    for place, part in enumerate((slice(0, 3), slice(3, 7))):
        own = jax.tree.map(lambda leaf, place=place: leaf[place::2], cache)
        assert_same(output[:, part], rest(x[:, part], own))


def test_a_language_model_steps(jit):
    config = configs.pLSTMLMModelConfig(vocab_size=11, embedding_dim=8, num_blocks=1, tie_weights=True, **TYPES)
    params = drawn(config)
    tokens = jnp.array([[3, 1, 10, 0], [5, 5, 2, 7]])
    logits = jit(lambda tokens: plstm_jax.apply(config, params, tokens))(tokens)
    assert logits.shape == (2, 4, 11)

    def advance(cache, tokens):
        output, cache = plstm_jax.step(config, params, tokens, cache)
        return cache, output

    _, outputs = jit(lambda cache: jax.lax.scan(advance, cache, tokens.T))(plstm_jax.init_cache(config, 2))
    assert_same(jnp.moveaxis(outputs, 0, 1), logits)


def test_inputs_of_known_values_may_stand_inside_of_traced_functions(jit):
    """Batches in closures, as in a loss of the parameters alone."""
    tokens, borders = jnp.array([[3, 1, 10, 0]]), jnp.array([0, 1, 4])
    config = configs.pLSTMLMModelConfig(vocab_size=11, embedding_dim=8, num_blocks=1, **TYPES)
    params = drawn(config)
    expected = jit(lambda tokens: plstm_jax.apply(config, params, tokens, cu_seqlens=borders))(tokens)
    assert_same(jit(lambda params: plstm_jax.apply(config, params, tokens, cu_seqlens=borders))(params), expected)
    edges = jnp.array([[0, 1], [1, 2]])
    config = configs.pLSTMGraphLayerConfig(input_dim=4, num_heads=2, max_edges=2, **TYPES)
    params, x = drawn(config), jnp.ones((3, 4))
    expected = plstm_jax.apply(config, params, x, DagTopology.from_edge_index(3, np.asarray(edges)))
    assert_same(jit(lambda params: plstm_jax.apply(config, params, x, edges))(params), expected)


@pytest.mark.parametrize("token", [-1, 11])
def test_tokens_outside_of_the_vocabulary_are_never_passed_over(jit, token):
    config = configs.TokenEmbeddingConfig(vocab_size=11, embedding_dim=4, **TYPES)
    params, tokens = drawn(config), jnp.array([3, token])
    with pytest.raises(ValueError, match=r"token_ids: expected values in \[0, 11\)"):
        plstm_jax.apply(config, params, tokens)
    rows = jit(lambda tokens: plstm_jax.apply(config, params, tokens))(tokens)
    assert jnp.isnan(rows).all(1).tolist() == [False, True]
    with pytest.raises(TypeError, match="token_ids: expected integers, got float64"):
        plstm_jax.apply(config, params, jnp.ones(2))


def test_gradients_reach_every_parameter(jit):
    config = configs.pLSTMVisionModelConfig(
        dim=8, num_heads=2, num_blocks=1, resolution=(8, 8), patch_size=4, output_shape=(3,), num_channels=1, **TYPES
    )
    params = drawn(config)
    pixels = jax.random.normal(jax.random.key(3), (2, 12, 12, 1), jnp.float64)
    grads = jit(jax.grad(lambda params: jnp.sum(plstm_jax.apply(config, params, pixels) ** 2)))(params)
    silent = [name for name, grad in plstm_jax.flatten(grads).items() if not jnp.any(grad)]
    assert silent == []


def test_paths_are_dropped_by_key_in_training():
    config = configs.DropPathConfig(drop_prob=0.25)
    x = jnp.ones((400, 3))
    np.testing.assert_array_equal(plstm_jax.apply(config, {}, x), x)
    found = plstm_jax.apply(config, {}, x, training=True, key=jax.random.key(0))
    assert set(np.unique(found)) == {0.0, 1 / 0.75}
    assert np.all(found == found[:, :1])
    assert abs(float(found.mean()) - 1) < 4 * (1 / 3 / 400) ** 0.5
    with pytest.raises(ValueError, match="key: expected a PRNG key"):
        plstm_jax.apply(config, {}, x, training=True)


def test_the_paths_of_a_graph_are_dropped_together(jit):
    layer = configs.pLSTMGraphLayerConfig(num_heads=2, max_edges=2, **TYPES)
    config = configs.PostUpProjectionBlockConfig(
        input_dim=8, projection_round=8, drop_path_rate=0.5, interaction_module=layer, **TYPES
    )
    params = drawn(config)
    graph = DagTopology.batch([DagTopology.from_edges(3, [(0, 1), (1, 2)])] * 8)
    x = jnp.tile(jax.random.normal(jax.random.key(2), (3, 8), jnp.float64), (8, 1))
    run = jit(lambda key: plstm_jax.apply(config, params, x, graph, training=True, key=key))
    graphs = np.asarray(run(jax.random.key(5))).reshape(8, -1)
    kinds = np.unique(graphs.round(9), axis=0)
    assert 1 < len(kinds) <= 4  # the ways to drop two branches


def test_parts_drop_their_paths_independently(jit):
    layer = configs.pLSTM1DLayerConfig(num_heads=2, JT=1, JV=1, JO=1, **TYPES)
    config = configs.PostUpProjectionBlockConfig(
        input_dim=8, projection_round=8, drop_path_rate=0.5, interaction_module=layer, **TYPES
    )
    stack = configs.BlockStackConfig(input_dim=8, num_blocks=2, block=config, **TYPES)
    params = drawn(stack)
    params["blocks"]["1"] = params["blocks"]["0"]
    x = jnp.tile(jax.random.normal(jax.random.key(2), (1, 2, 8), jnp.float64), (64, 1, 1))
    found = jit(lambda key: plstm_jax.apply(stack, params, x, training=True, key=key))(jax.random.key(0))
    assert 8 < len(np.unique(np.asarray(found).reshape(64, -1).round(9), axis=0)) <= 16  # ways to drop four branches


LAYER = SEQUENCES["scalar"]
GRID = configs.pLSTM2DLayerFusedConfig(input_dim=8, num_heads=2, **TYPES)
GRAPH = configs.pLSTMGraphLayerConfig(input_dim=8, num_heads=2, max_edges=2, **TYPES)
PATH = DagTopology.from_edges(3, [(0, 1), (1, 2)])
STAR = DagTopology.from_edges(4, [(0, 1), (0, 2), (0, 3)])
WRONG = {
    "config": (lambda: plstm_jax.apply("plstm_vis_tiny", {}, jnp.ones(3)), TypeError, "config: expected an instance"),
    "missing": (lambda: plstm_jax.apply(LAYER, {}, jnp.ones((1, 2, 8))), ValueError, "params: expected the weights of"),
    "features": (lambda: run(LAYER, jnp.ones((1, 2, 7))), ValueError, r"x: expected \[B, T, D\] with D=8"),
    "cache entries": (lambda: run(LAYER, jnp.ones((1, 2, 8)), cache={}), ValueError, "cache: expected the entries"),
    "cache rows": (
        lambda: run(LAYER, jnp.ones((1, 2, 8)), cache=plstm_jax.init_cache(LAYER, 2)),
        ValueError,
        "cache: expected 1 sequences",
    ),
    "borders": (lambda: run(LAYER, jnp.ones((1, 2, 8)), cu_seqlens=[0, 3]), ValueError, "cu_seqlens"),
    "cache on grids": (
        lambda: run(GRID, jnp.ones((1, 2, 2, 8)), return_cache=True),
        ValueError,
        "return_cache: expected a module with one time axis",
    ),
    "input first": (
        lambda: jax.eval_shape(lambda x: plstm_jax.apply(LAYER, x, drawn(LAYER)), jnp.ones((3, 2, 8))),
        TypeError,
        "params: expected nested dicts, as plstm_jax.init makes them, got ",
    ),
    "empty cache": (lambda: plstm_jax.init_cache(GRID, 1), ValueError, "init_cache: expected a module with one time"),
    "no graph": (lambda: run(GRAPH, jnp.ones((3, 8))), TypeError, "graph: expected a DagTopology or an edge_index"),
    "graph": (lambda: run(LAYER, jnp.ones((3, 2, 8)), PATH), ValueError, "graph: expected None"),
    "nodes": (lambda: run(GRAPH, jnp.ones((4, 8)), PATH), ValueError, "expected a graph of N=4 nodes"),
    "kind of graph": (lambda: run(GRAPH, jnp.ones((3, 8)), "path"), TypeError, "got str"),
    "degree": (lambda: run(GRAPH, jnp.ones((4, 8)), STAR), ValueError, "got 3 out of node 0"),
}


def run(config, x, *more, **options):
    params = drawn(config)
    return jax.eval_shape(lambda x: plstm_jax.apply(config, params, x, *more, **options), x)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_are_refused_when_traced(name):
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        call()


def test_edges_are_a_graph(jit):
    params, x = drawn(GRAPH), jax.random.normal(jax.random.key(0), (3, 8), jnp.float64)
    by_edges, by_topology = (
        jit(lambda x, graph=graph: plstm_jax.apply(GRAPH, params, x, graph))(x)
        for graph in (np.array([[0, 1], [1, 2]]), PATH)
    )
    assert_same(by_edges, by_topology)


def test_scanning_and_recomputing_change_no_number(jit):
    """A scanned stack has the same parameters, steps, gradients and dropped paths."""
    layer = configs.pLSTM1DLayerConfig(num_heads=2, JT=1, JV=1, JO=1, **TYPES)
    block = configs.PostUpProjectionBlockConfig(
        input_dim=8, projection_round=8, drop_path_rate=0.5, interaction_module=layer, **TYPES
    )
    plain, scanned = (
        configs.BlockStackConfig(input_dim=8, num_blocks=2, block=block, scan_blocks=scan, **TYPES)
        for scan in (False, True)
    )
    params = drawn(plain)
    x = jax.random.normal(jax.random.key(9), (4, 5, 8), jnp.float64)

    def trained(config, params, remat):
        def loss(params):
            output = plstm_jax.apply(config, params, x, training=True, key=jax.random.key(1), remat=remat)
            return jnp.sum(jnp.sin(output)), output

        return jit(jax.grad(loss, has_aux=True))(params)

    expected = trained(plain, params, False)
    assert_same(trained(scanned, params, True), expected)
    stacked = plstm_jax.stack_blocks(params)
    grads, output = trained(scanned, stacked, False)
    assert_same((plstm_jax.unstack_blocks(grads), output), expected)
    assert_same(trained(plain, stacked, True), (grads, output))
    stepped = [
        jit(lambda x, cache, config=config: plstm_jax.step(config, params, x, cache))(
            x[:, 0], plstm_jax.init_cache(config, 4)
        )
        for config in (plain, scanned)
    ]
    assert_same(*stepped)
    assert jax.tree.structure(stepped[0]) == jax.tree.structure(stepped[1])
