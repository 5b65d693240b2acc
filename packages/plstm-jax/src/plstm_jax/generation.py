"""Sampling text from a model that has a cache and a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int

from plstm_config import Config
from plstm_config.sampling import check_prompt, check_sampling
from plstm_jax.dtypes import wide
from plstm_jax.running import apply, step

Cache: TypeAlias = Mapping[str, Any]
Read: TypeAlias = Callable[[Array], tuple[Array, Cache]]
Advance: TypeAlias = Callable[[Array, Cache], tuple[Array, Cache]]


def generate(
    config: Config,
    params: Mapping[str, Any],
    token_ids: Int[Array, "B T"],
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    key: Array | None = None,
) -> Int[Array, "B T2"]:
    """Continue token sequences: the prompt in one parallel pass, then one step per new token, as one program.

    Args:
        config: config of a language model.
        params: its parameters.
        token_ids: prompt [B, T] with T >= 1.
        max_new_tokens: number of tokens to append.
        temperature: divides the logits; 0 takes the most likely token.
        top_k: keep only the k most likely tokens.
        top_p: keep only the smallest set of most likely tokens whose probability reaches p.
        key: key for the draws; needed unless the temperature is 0.

    Returns:
        Tokens [B, T + max_new_tokens], the prompt included.

    Raises:
        TypeError: the tokens are no integers.
        ValueError: an empty prompt, a negative number of tokens, an option outside its range, or a missing key.
    """
    check_generation(token_ids, max_new_tokens, temperature, top_k, top_p, key)
    return run_generation(_bind, config, params, token_ids, max_new_tokens, temperature, top_k, top_p, key)


def generate_from(
    bind: Callable[[Any, Any], tuple[Read, Advance]],
    model: Any,
    arrays: Any,
    token_ids: Any,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    key: Array | None = None,
) -> Int[Array, "B T2"]:
    """What `generate` of every library of modules comes down to: see there, and `run_generation` for the first three.

    Raises:
        TypeError: the tokens are no integers.
        ValueError: as in [generate][].
    """
    check_generation(token_ids, max_new_tokens, temperature, top_k, top_p, key)
    return run_generation(bind, model, arrays, token_ids, max_new_tokens, temperature, top_k, top_p, key)


@partial(jax.jit, static_argnums=(0, 1, 4, 5, 6, 7))
def run_generation(
    bind: Callable[[Any, Any], tuple[Read, Advance]],
    model: Any,
    arrays: Any,
    token_ids: Int[Array, "B T"],
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    key: Array | None,
) -> Int[Array, "B T2"]:
    """One compiled program for `generate` of every library of modules.

    Args:
        bind: from the model and its arrays to what `continue_tokens` calls; a function that lives on, since the
            compiled program is found by it.
        model: what hashes: a config, a graph definition, a module.
        arrays: parameters and whatever else it holds.
        token_ids: prompt, checked by `check_generation` like all that follows.
        max_new_tokens: number of tokens to append.
        temperature: divides the logits.
        top_k: keep only the k most likely tokens.
        top_p: keep only the smallest set of most likely tokens whose probability reaches p.
        key: key for the draws.

    Returns:
        Tokens [B, T + max_new_tokens].
    """
    choose = partial(sample_tokens, temperature=temperature, top_k=top_k, top_p=top_p)
    return continue_tokens(*bind(model, arrays), jnp.asarray(token_ids), max_new_tokens, choose, key)


def _bind(config: Any, params: Any) -> tuple[Read, Advance]:
    return partial(apply, config, params, return_cache=True), partial(step, config, params)


def check_generation(
    token_ids: Any, max_new_tokens: int, temperature: float, top_k: int | None, top_p: float | None, key: Array | None
) -> None:
    """Check what `generate` of every library of modules is given.

    Raises:
        TypeError: the tokens are no integers.
        ValueError: as in [generate][].
    """
    check_sampling(temperature, top_k, top_p)
    check_prompt(token_ids, max_new_tokens)
    if not jnp.issubdtype(token_ids.dtype, jnp.integer):
        raise TypeError(f"token_ids: expected integers, got {token_ids.dtype}")
    if temperature > 0 and key is None:
        raise ValueError(f"key: expected a key for random numbers, since temperature={temperature}, got None")


def continue_tokens(
    read: Read,
    advance: Advance,
    token_ids: Int[Array, "B T"],
    max_new_tokens: int,
    choose: Callable[[Array, Array | None], Array],
    key: Array | None,
) -> Int[Array, "B T2"]:
    """What every `generate` comes down to, to be jitted with what it is made of.

    Args:
        read: from tokens [B, T] to logits [B, T, V] and the cache after them.
        advance: from tokens [B] and a cache to logits [B, V] and the next cache.
        token_ids: prompt.
        max_new_tokens: number of tokens to append.
        choose: from logits [B, V] and a key to tokens [B].
        key: key for the draws, None if `choose` draws none.

    Returns:
        Tokens [B, T + max_new_tokens].
    """
    if max_new_tokens == 0:
        return token_ids
    logits, cache = read(token_ids)

    def choose_at(index: Array | int, logits: Array) -> Array:
        return choose(logits, None if key is None else jax.random.fold_in(key, index)).astype(token_ids.dtype)

    def body(carry: tuple[Array, Cache], index: Array) -> tuple[tuple[Array, Cache], Array]:
        token, cache = carry
        logits, cache = advance(token, cache)
        chosen = choose_at(index, logits)
        return (chosen, cache), chosen

    first = choose_at(0, logits[:, -1])
    _, rest = lax.scan(body, (first, cache), jnp.arange(1, max_new_tokens))
    return jnp.concatenate([token_ids, first[:, None], jnp.swapaxes(rest, 0, 1)], axis=1)


def sample_tokens(
    logits: Float[Array, "B V"],
    key: Array | None = None,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Int[Array, " B"]:
    """Draw one token per row.

    Args:
        logits: logits [B, V].
        key: key for the draw; not used at temperature 0.
        temperature: divides the logits; 0 takes the most likely token.
        top_k: keep only the k most likely tokens.
        top_p: keep only the smallest set of most likely tokens whose probability reaches p.

    Returns:
        Tokens [B].

    Raises:
        ValueError: an option outside its range, or a missing key.
    """
    check_sampling(temperature, top_k, top_p)
    if temperature == 0:
        return jnp.argmax(logits, axis=-1)
    if key is None:
        raise ValueError(f"key: expected a key for random numbers, since temperature={temperature}, got None")
    # narrow dtypes have too few digits for a cumulative sum over a vocabulary
    scaled = logits.astype(wide(logits.dtype)) / temperature
    if top_k is not None and top_k < scaled.shape[-1]:
        values, places = lax.top_k(scaled, top_k)
        scaled = jnp.put_along_axis(jnp.full_like(scaled, -jnp.inf), places, values, axis=-1, inplace=False)
    if top_p is not None and top_p < 1:
        scaled = jnp.where(_most_likely(scaled, top_p), scaled, -jnp.inf)
    return jax.random.categorical(key, scaled, axis=-1)


def _most_likely(logits: Float[Array, "B V"], top_p: float) -> Array:
    """Which tokens are in the smallest set of most likely ones whose probability reaches p."""
    probabilities = jax.nn.softmax(logits, axis=-1)
    order = jnp.argsort(probabilities, axis=-1, descending=True, stable=True)
    ordered = jnp.take_along_axis(probabilities, order, axis=-1)
    # a token stays while those before it have not reached p, so the first always does
    kept = jnp.cumsum(ordered, axis=-1) - ordered < top_p
    return jnp.put_along_axis(jnp.zeros_like(kept), order, kept, axis=-1, inplace=False)
