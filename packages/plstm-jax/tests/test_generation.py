"""Continuing text: greedy, sampled, restricted, and wrong calls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plstm_config as configs
import plstm_jax
from plstm_config.parameters import parameter_tree
from plstm_jax.generation import sample_tokens

CONFIG = configs.pLSTMLMModelConfig(
    vocab_size=11, embedding_dim=8, num_blocks=2, logit_soft_cap=None, dtype="float64", param_dtype="float64"
)
LOGITS = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5]]))


@pytest.fixture
def params():
    random = np.random.default_rng(0)
    tree = parameter_tree(CONFIG)
    return plstm_jax.unflatten({name: 0.5 * random.standard_normal(item.shape) for name, item in tree.items()})


def test_greedy_takes_the_most_likely_token_of_the_whole_sequence(params, jit):
    prompt = jnp.array([[3, 1, 4], [1, 5, 9]])
    tokens = plstm_jax.generate(CONFIG, params, prompt, 5, temperature=0.0)
    assert tokens.shape == (2, 8)
    assert jnp.array_equal(tokens[:, :3], prompt)
    logits = jit(lambda tokens: plstm_jax.apply(CONFIG, params, tokens))(tokens[:, :-1])
    assert jnp.array_equal(jnp.argmax(logits, -1)[:, 2:], tokens[:, 3:])
    assert len(set(tokens[:, 3:].ravel().tolist())) > 1
    stacked = plstm_jax.stack_blocks(params)
    scanned = configs.change(CONFIG, {"block_stack.scan_blocks": True})
    assert jnp.array_equal(plstm_jax.generate(scanned, stacked, prompt, 5, temperature=0.0), tokens)


def test_the_key_alone_decides_what_is_drawn(params):
    prompt = jnp.ones((4, 1), jnp.int32)
    first, again, other = (
        plstm_jax.generate(CONFIG, params, prompt, 6, temperature=2.0, key=jax.random.key(seed)) for seed in (0, 0, 1)
    )
    assert jnp.array_equal(first, again)
    assert not jnp.array_equal(first, other)
    assert first.dtype == jnp.int32
    assert len({tuple(row) for row in first.tolist()}) == 4
    assert plstm_jax.generate(CONFIG, params, prompt, 0, temperature=0.0) is not None


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"top_k": 2}, [0, 1]),
        ({"top_k": 9}, [0, 1, 2, 3]),
        ({"top_p": 0.79}, [0, 1]),
        ({"top_p": 0.81}, [0, 1, 2]),
        ({"top_p": 0.01}, [0]),
        ({"top_p": 1.0}, [0, 1, 2, 3]),
        ({"top_k": 3, "top_p": 0.6}, [0, 1]),
    ],
)
def test_draws_have_the_distribution_of_what_is_kept(options, kept):
    count = 4000
    logits = jnp.repeat(LOGITS, count, 0)
    tokens = np.asarray(sample_tokens(logits, jax.random.key(0), **options)).reshape(2, count)
    expected = np.zeros(4)
    expected[kept] = np.array([0.5, 0.3, 0.15, 0.05])[kept]
    expected /= expected.sum()
    for row, wanted in zip(tokens, (expected, expected[::-1]), strict=True):
        shares = np.bincount(row, minlength=4) / count
        assert (shares[wanted == 0] == 0).all()
        # five standard deviations of a share
        assert (np.abs(shares - wanted) <= 5 * np.sqrt(wanted * (1 - wanted) / count)).all()


def test_temperature_sharpens():
    shares = [
        np.mean(np.asarray(sample_tokens(jnp.repeat(LOGITS[:1], 4000, 0), jax.random.key(0), temperature=t)) == 0)
        for t in (0.25, 1.0, 4.0)
    ]
    assert shares[0] > 0.8 > 0.6 > shares[1] > 0.4 > shares[2]
    assert sample_tokens(LOGITS, temperature=0.0).tolist() == [0, 3]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"temperature": -1.0}, ValueError, "temperature: expected a finite number >= 0"),
        ({"temperature": float("nan")}, ValueError, "temperature: expected a finite number >= 0"),
        ({"top_k": 0}, ValueError, "top_k: expected None or an integer >= 1, got 0"),
        ({"top_p": 0.0}, ValueError, r"top_p: expected None or a number in \(0, 1\], got 0.0"),
        ({"max_new_tokens": -1}, ValueError, "max_new_tokens: expected an integer >= 0, got -1"),
        ({"token_ids": jnp.ones((2, 0), jnp.int32)}, ValueError, r"token_ids: expected a prompt \[B, T\] with T >= 1"),
        ({"token_ids": jnp.ones(3, jnp.int32)}, ValueError, r"token_ids: expected a prompt \[B, T\] with T >= 1"),
        ({"token_ids": jnp.ones((2, 3))}, TypeError, "token_ids: expected integers, got float"),
        ({"key": None}, ValueError, "key: expected a key for random numbers, since temperature=1.0, got None"),
    ],
)
def test_wrong_calls_are_refused(params, change, error, message):
    call = {"token_ids": jnp.ones((2, 3), jnp.int32), "max_new_tokens": 2, "key": jax.random.key(0)} | change
    with pytest.raises(error, match=message):
        plstm_jax.generate(CONFIG, params, **call)


def test_a_draw_without_a_key_is_refused():
    with pytest.raises(ValueError, match="key: expected a key for random numbers"):
        sample_tokens(LOGITS)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": 2.0}, {"temperature": 2.0, "top_k": 3}])
@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
def test_prompts_of_any_length_are_continued_as_if_alone(params, options, make):
    random = np.random.default_rng(0)
    prompts = [jnp.asarray(random.integers(0, 11, length), jnp.int32) for length in (3, 1, 7)]
    keys = jnp.stack([make(seed) for seed in (5, 6, 7)])
    found = plstm_jax.generate(CONFIG, params, prompts, 6, key=keys, **options)
    for prompt, key, tokens in zip(prompts, keys, found, strict=True):
        alone = plstm_jax.generate(CONFIG, params, prompt[None], 6, key=key[None], **options)
        assert jnp.array_equal(tokens, alone[0])
    assert plstm_jax.generate(CONFIG, params, [], 6, key=keys[:0], **options) == []
    unchanged = plstm_jax.generate(CONFIG, params, prompts, 0, key=keys, **options)
    assert all(jnp.array_equal(*pair) for pair in zip(unchanged, prompts, strict=True))


@pytest.mark.parametrize(
    ("prompts", "options", "error", "message"),
    [
        ([np.zeros(0, int)], {}, ValueError, r"token_ids\[0\]: expected a prompt \[T\] with T >= 1"),
        ([np.zeros((1, 1), int)], {}, ValueError, r"token_ids\[0\]: expected a prompt \[T\]"),
        ([np.zeros(1)], {}, TypeError, r"token_ids\[0\]: expected an array of integers \[T\], got float64"),
        ([[1, 2]], {}, TypeError, r"token_ids\[0\]: expected an array of integers \[T\], got list"),
        ([np.zeros(1, int)], {"temperature": 1.0}, ValueError, "key: expected a key for random numbers"),
        ([np.zeros(1, int)], {"key": jax.random.split(jax.random.key(0))}, ValueError, "key: expected one for each"),
    ],
)
def test_bad_lists_of_prompts(params, prompts, options, error, message):
    with pytest.raises(error, match=message):
        plstm_jax.generate(CONFIG, params, prompts, 2, **{"temperature": 0.0, **options})


def test_a_model_that_reads_from_both_ends_continues_nothing():
    both = configs.change(CONFIG, {"block_stack.block.interaction_module.bidirectional": True})
    params, prompt = plstm_jax.init(both, jax.random.key(0)), jnp.ones((1, 3), jnp.int32)
    for name, call in (
        ("generate", lambda: plstm_jax.generate(both, params, prompt, 2, temperature=0.0)),
        ("init_cache", lambda: plstm_jax.init_cache(both, 1)),
        ("step", lambda: plstm_jax.step(both, params, prompt[:, 0], {})),
    ):
        with pytest.raises(ValueError, match=f"^{name}: expected a causal module, got pLSTMLMModel with bidirectional"):
            call()
