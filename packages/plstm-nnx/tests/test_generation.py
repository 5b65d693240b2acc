"""Steps, caches and packed sequences, and continuing text in one program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import plstm_config as configs
import plstm_jax
import plstm_nnx
from plstm_testing.tolerances import assert_within, tolerance

CONFIG = configs.pLSTMLMModelConfig(
    vocab_size=11, embedding_dim=8, num_blocks=2, logit_soft_cap=None, dtype="float64", param_dtype="float64"
)
LIMIT = tolerance("float64", "output")
PROMPT = jnp.array([[3, 1, 4], [1, 5, 9]])


@pytest.fixture(params=[False, True], ids=["list", "scan"])
def model(request):
    model = plstm_nnx.build(CONFIG, rngs=nnx.Rngs(0), scan_blocks=request.param)
    # numbers of a size that gives different tokens
    nnx.update(model, jax.tree.map(lambda one: 5 * one, nnx.state(model, nnx.Param)))
    return model


def test_steps_and_pieces_are_the_full_pass(model, jit):
    tokens = jnp.array([[3, 1, 10, 0, 7], [5, 5, 2, 7, 8]])
    logits, cache = jit(lambda tokens: model(tokens, return_cache=True))(tokens)

    def advance(cache, token):
        output, cache = model.step(token, cache)
        return cache, output

    after, outputs = jit(lambda cache: jax.lax.scan(advance, cache, tokens.T))(model.init_cache(2))
    assert_within(jnp.moveaxis(outputs, 0, 1), logits, LIMIT)
    start, middle = jit(lambda tokens: model(tokens, return_cache=True))(tokens[:, :2])
    rest, end = jit(lambda tokens, cache: model(tokens, cache=cache, return_cache=True))(tokens[:, 2:], middle)
    assert_within(jnp.concatenate([start, rest], 1), logits, LIMIT)
    assert jax.tree.structure(after) == jax.tree.structure(end) == jax.tree.structure(cache)
    for one, two, whole in zip(*map(jax.tree.leaves, (after, end, cache)), strict=True):
        assert_within(one, whole, LIMIT)
        assert_within(two, whole, LIMIT)


def test_packed_sequences_are_separate_ones(model, jit):
    tokens = jnp.array([[3, 1, 10, 0, 7]])
    packed = jit(lambda tokens: model(tokens, cu_seqlens=np.array([0, 2, 5])))(tokens)
    pieces = [jit(lambda tokens: model(tokens))(part) for part in (tokens[:, :2], tokens[:, 2:])]
    assert_within(packed, jnp.concatenate(pieces, 1), LIMIT)


def test_text_is_that_of_plain_jax(model):
    params = plstm_nnx.get_params(model)
    for options in ({"temperature": 0.0}, {"key": jax.random.key(1), "top_k": 5, "top_p": 0.9}):
        found = model.generate(PROMPT, 6, **options)
        assert jnp.array_equal(found, plstm_jax.generate(CONFIG, params, PROMPT, 6, **options))
    assert len(set(found[:, 3:].ravel().tolist())) > 1


def test_the_same_program_serves_new_weights(model):
    first = model.generate(PROMPT, 6, temperature=0.0)
    nnx.update(model, jax.tree.map(lambda one: -one, nnx.state(model, nnx.Param)))
    assert not jnp.array_equal(model.generate(PROMPT, 6, temperature=0.0), first)


def test_no_path_is_dropped_while_generating():
    types = {"dtype": "float64", "param_dtype": "float64"}
    layer = configs.pLSTM1DLayerConfig(num_heads=2, JT=1, JV=1, JO=1, **types)
    block = configs.PostUpProjectionBlockConfig(drop_path_rate=0.9, interaction_module=layer, **types)
    config = configs.change(CONFIG, {"block_stack.block": block})
    model = plstm_nnx.build(config, rngs=nnx.Rngs(0))
    training = model.generate(PROMPT, 6, temperature=0.0)
    model.eval()
    assert jnp.array_equal(model.generate(PROMPT, 6, temperature=0.0), training)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"temperature": -1.0}, ValueError, "temperature: expected a finite number >= 0"),
        ({"top_k": 0}, ValueError, "top_k: expected None or an integer >= 1, got 0"),
        ({"max_new_tokens": -1}, ValueError, "max_new_tokens: expected an integer >= 0, got -1"),
        ({"token_ids": jnp.ones((2, 0), jnp.int32)}, ValueError, r"token_ids: expected a prompt \[B, T\] with T >= 1"),
        ({"token_ids": jnp.ones((2, 3))}, TypeError, "token_ids: expected integers, got float"),
        ({"top": 3}, TypeError, "options: expected some of temperature, top_k, top_p and key, got 'top'"),
        ({"key": None}, ValueError, "key: expected a key for random numbers, since temperature=1.0, got None"),
    ],
)
def test_wrong_calls_are_refused(change, error, message):
    model = nnx.eval_shape(lambda: plstm_nnx.build(CONFIG, rngs=nnx.Rngs(0)))
    call = {"token_ids": jnp.ones((2, 3), jnp.int32), "max_new_tokens": 2, "key": jax.random.key(0)} | change
    with pytest.raises(error, match=message):
        model.generate(**call)


def test_a_model_that_reads_from_both_ends_continues_nothing():
    both = configs.change(CONFIG, {"block_stack.block.interaction_module.bidirectional": True})
    model = plstm_nnx.build(both, rngs=nnx.Rngs(0))
    for name, call in (
        ("generate", lambda: model.generate(PROMPT, 2, temperature=0.0)),
        ("init_cache", lambda: model.init_cache(2)),
        ("step", lambda: model.step(PROMPT[:, 0], {})),
    ):
        with pytest.raises(ValueError, match=f"^{name}: expected a causal module, got pLSTMLMModel with bidirectional"):
            call()
