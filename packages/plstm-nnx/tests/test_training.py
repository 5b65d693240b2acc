"""Training: gradients, optimizers, dropped paths, scanned and recomputed blocks; in graph mode and in tree mode."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import plstm_config as configs
import plstm_jax
import plstm_nnx
from plstm_testing.tolerances import assert_within, tolerance

TYPES = {"dtype": "float64", "param_dtype": "float64"}
LIMIT = tolerance("float64", "output")
TREE_MODE = {"NNX_GRAPH_MODE": "false", "NNX_GRAPH_UPDATES": "false"}
IN_TREE_MODE = all(os.environ.get(name) == value for name, value in TREE_MODE.items())


def stack_config(rate=0.5, **options):
    layer = configs.pLSTM1DLayerConfig(num_heads=2, JT=1, JV=1, JO=1, **TYPES)
    block = configs.PostUpProjectionBlockConfig(
        input_dim=8, projection_round=8, drop_path_rate=rate, interaction_module=layer, **TYPES
    )
    return configs.BlockStackConfig(input_dim=8, num_blocks=2, block=block, **TYPES, **options)


@pytest.fixture
def x():
    return jax.random.normal(jax.random.key(9), (4, 5, 8), jnp.float64)


def loss_and_gradients(module, x, jit, *, deterministic):
    """In the form that works in every mode: the parameters apart from everything else."""
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    def loss(params):
        output = nnx.merge(graph, params, nnx.clone(rest))(x, deterministic=deterministic)
        return jnp.sum(jnp.sin(output)), output

    return jit(jax.value_and_grad(loss, has_aux=True))(params)


def assert_same(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert_within(one, other, LIMIT)


def test_gradients_are_those_of_plain_jax(x, jit):
    config = stack_config()
    module = plstm_nnx.build(config, rngs=nnx.Rngs(0))

    def loss(params):
        output = plstm_jax.apply(config, params, x)
        return jnp.sum(jnp.sin(output)), output

    expected = jit(jax.value_and_grad(loss, has_aux=True))(plstm_nnx.get_params(module))
    value, grads = loss_and_gradients(module, x, jit, deterministic=True)
    assert_same((value, plstm_nnx.get_params(grads)), expected)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("remat", [False, True])
def test_scanning_and_recomputing_change_no_number(x, jit, scan, remat):
    plain = plstm_nnx.build(stack_config(), rngs=nnx.Rngs(0))
    other = plstm_nnx.build(stack_config(), rngs=nnx.Rngs(0), scan_blocks=scan, remat=remat)
    (value, output), grads = loss_and_gradients(other, x, jit, deterministic=True)
    expected, wanted = loss_and_gradients(plain, x, jit, deterministic=True)
    assert_same((value, output), expected)
    assert_same(plstm_nnx.get_params(grads), plstm_nnx.get_params(wanted))


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("remat", [False, True])
def test_paths_are_dropped_anew_at_every_call_until_evaluation(scan, remat):
    module = plstm_nnx.build(stack_config(), rngs=nnx.Rngs(0), scan_blocks=scan, remat=remat)
    x = jnp.tile(jax.random.normal(jax.random.key(2), (1, 2, 8), jnp.float64), (32, 1, 1))
    first, second = (np.asarray(module(x)).reshape(32, -1).round(9) for _ in range(2))
    assert not np.array_equal(first, second)
    assert 8 < len(np.unique(first, axis=0)) <= 16  # ways to drop four branches
    assert np.array_equal(module(x, deterministic=True), module(x, deterministic=True))
    module.eval()
    expected = np.asarray(module(x))
    assert np.array_equal(module(x), expected)
    assert np.array_equal(expected, expected[:1].repeat(32, 0))
    assert not np.array_equal(module(x, deterministic=False), expected)
    module.train()
    assert not np.array_equal(module(x), expected)
    assert np.array_equal(nnx.view(module, deterministic=True)(x), expected)
    assert not np.array_equal(nnx.view(module)(x), expected)


def test_every_block_drops_paths_of_its_own():
    config = stack_config()
    module = plstm_nnx.build(config, rngs=nnx.Rngs(0), scan_blocks=True)
    keys = [one[...] for path, one in nnx.to_flat_state(nnx.state(module, nnx.RngKey))]
    assert all(key.shape == (2,) for key in keys)
    numbers = [jax.random.bits(key) for one in keys for key in one]
    assert len({int(number) for number in numbers}) == len(numbers)


def test_paths_of_a_jitted_call_are_dropped_as_those_of_a_plain_one(x):
    jitted, plain = (plstm_nnx.build(stack_config(), rngs=nnx.Rngs(0)) for _ in range(2))
    if IN_TREE_MODE:  # no updates come out of a jitted call there, unless they are returned

        @jax.jit
        def run(module, x):
            output = module(x)
            return output, module

        for _ in range(2):
            output, jitted = run(jitted, x)
            assert_within(output, plain(x), LIMIT)
        return
    run = nnx.jit(lambda module, x: module(x))
    for _ in range(2):
        assert_within(run(jitted, x), plain(x), LIMIT)


def test_a_step_of_an_optimizer_lowers_the_loss(x, jit):
    module = plstm_nnx.build(stack_config(0.1), rngs=nnx.Rngs(0), scan_blocks=True, remat=True)
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    optimizer = optax.adam(1e-2)

    def loss(params, rest):
        module = nnx.merge(graph, params, nnx.clone(rest))
        value = jnp.mean((module(x) - 1.0) ** 2)
        return value, nnx.split(module, nnx.Param, ...)[2]

    @jit
    def train(params, rest, state):
        (value, rest), grads = jax.value_and_grad(loss, has_aux=True)(params, rest)
        updates, state = optimizer.update(grads, state, params)
        return value, optax.apply_updates(params, updates), rest, state

    state, values = optimizer.init(params), []
    for _ in range(8):
        value, params, rest, state = train(params, rest, state)
        values.append(float(value))
    assert max(values[-2:]) < min(values[:2])
    nnx.update(module, params, rest)
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, nnx.state(module, nnx.Param), params)))


def test_the_optimizer_of_nnx_trains(x):
    model = plstm_nnx.build(stack_config(0.1), rngs=nnx.Rngs(0), scan_blocks=True)
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def train(model, optimizer, x):
        value, grads = nnx.value_and_grad(lambda model: jnp.mean((model(x) - 1.0) ** 2))(model)
        optimizer.update(model, grads)
        return value

    values = [float(train(model, optimizer, x)) for _ in range(8)]
    assert max(values[-2:]) < min(values[:2])


def test_weight_decay_follows_the_table():
    model = plstm_nnx.build(configs.LinearConfig(input_dim=3, output_dim=2), rngs=nnx.Rngs(0))
    mask = plstm_nnx.weight_decay_mask(model)
    assert (mask["weight"], mask["bias"]) == (True, False)
    before = nnx.state(model, nnx.Param)["weight"][...]
    optimizer = nnx.Optimizer(model, optax.adamw(1.0, weight_decay=0.5, mask=mask), wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param)))
    assert_within(model.weight[...], 0.5 * before, LIMIT)
    assert not jnp.any(model.bias[...])


def test_a_head_of_ones_own_decays_by_its_axes():
    config = configs.preset("plstm_lm_small", vocab_size=7, embedding_dim=8, num_blocks=1, num_heads=2)
    model = plstm_nnx.build(config, rngs=nnx.Rngs(0))
    model.lm_head = nnx.Linear(8, 3, rngs=nnx.Rngs(0))
    mask = plstm_nnx.weight_decay_mask(model)
    assert (mask["lm_head"]["kernel"], mask["lm_head"]["bias"]) == (True, False)
    assert (mask["token_embedding"]["weight"], mask["post_blocks_norm"]["scale"]) == (True, False)


def test_all_of_this_holds_in_tree_mode():
    graph_mode_only = "optimizer_of_nnx"  # which changes models in place, and that is what graph mode is
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", str(Path(__file__))]
    command += ["-k", f"not tree_mode and not {graph_mode_only}"]
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ | TREE_MODE)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed, 2 deselected" in run.stdout
