"""Sampling text from a model that has a cache and a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Int

from plstm_config import Config
from plstm_config.checks import check_causal
from plstm_config.sampling import check_prompt, check_prompts, check_sampling
from plstm_jax.dtypes import wide
from plstm_jax.running import apply, step

Cache: TypeAlias = Mapping[str, Any]
# From tokens [B, T] to logits [B, T, V] and the cache after them; packed prompts in one row come with `cu_seqlens`.
Read: TypeAlias = Callable[..., tuple[Array, Cache]]
# From tokens [B] and a cache to logits [B, V] and the next cache.
Advance: TypeAlias = Callable[[Array, Cache], tuple[Array, Cache]]
Bind: TypeAlias = Callable[[Any, Any], tuple[Read, Advance]]


def generate(
    config: Config,
    params: Mapping[str, Any],
    token_ids: Int[Array, "B T"] | Sequence[Array],
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    key: Array | None = None,
) -> Int[Array, "B T2"] | list[Array]:
    """Continue token sequences: the prompt in one parallel pass, then one step per new token, as one program.

    A model reads every token it is given: padding, on whichever side, changes states and logits. Prompts of different
    lengths are therefore given as a list. They are packed one after the other without any padding, and each is
    continued as if it were alone.

    Args:
        config: config of a language model.
        params: its parameters.
        token_ids: prompts [B, T] with T >= 1, or a list of prompts [T] of any lengths >= 1.
        max_new_tokens: number of tokens to append.
        temperature: divides the logits; 0 takes the most likely token.
        top_k: keep only the k most likely tokens.
        top_p: keep only the smallest set of most likely tokens whose probability reaches p.
        key: key for the draws; needed unless the temperature is 0. With one key for each prompt [B], what a prompt is
            continued with does not depend on the others.

    Returns:
        Tokens [B, T + max_new_tokens], the prompt included, or a list of tokens [T + max_new_tokens].

    Raises:
        TypeError: the tokens are no integers.
        ValueError: an empty prompt, a negative number of tokens, an option outside its range, a missing key, or a model
            that is not causal.

    Examples:
        >>> import jax, jax.numpy as jnp, plstm_config, plstm_jax
        >>> config = plstm_config.pLSTMLMModelConfig(vocab_size=9, embedding_dim=16, num_blocks=1)
        >>> params = plstm_jax.init(config, jax.random.key(0))
        >>> plstm_jax.generate(config, params, jnp.array([[1, 2, 3]]), 4, top_k=3, key=jax.random.key(1)).shape
        (1, 7)
    """
    check_causal(getattr(config, "kind", "any"), getattr(config, "class_name", ""), ["generate"])
    options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "key": key}
    return generate_from(_bind, config, params, token_ids, max_new_tokens, **options)


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: what of a compiled program is fixed.

    Attributes:
        temperature: divides the logits; 0 takes the most likely token.
        top_k: keep only the k most likely tokens.
        top_p: keep only the smallest set of most likely tokens whose probability reaches p.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def choose(self, logits: Float[Array, "B V"], key: Array | None) -> Int[Array, " B"]:
        """Draw one token per row; see `sample_tokens`."""
        return sample_tokens(logits, key, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)


def generate_from(
    bind: Bind,
    model: Any,
    arrays: Any,
    token_ids: Int[Array, "B T"] | Sequence[Array],
    max_new_tokens: int,
    *,
    key: Array | None = None,
    **options: Any,
) -> Int[Array, "B T2"] | list[Array]:
    """What `generate` of every library of modules does.

    Args:
        bind: from the model and its arrays to what `continue_tokens` calls; a function that lives on, since the
            compiled program is found by it.
        model: what hashes: a config, a graph definition, a module.
        arrays: parameters and whatever else it holds.
        token_ids: prompts [B, T] with T >= 1, or a list of prompts [T] of any lengths >= 1.
        max_new_tokens: number of tokens to append.
        key: key for the draws, or one for each prompt [B]; needed unless the temperature is 0.
        options: of `Sampling`.

    Returns:
        Tokens [B, T + max_new_tokens], the prompt included, or a list of tokens [T + max_new_tokens].

    Raises:
        TypeError: the tokens are no integers, or there is no such option.
        ValueError: an empty prompt, a negative number of tokens, an option outside its range, or a missing key.
    """
    for name in options.keys() - {item.name for item in fields(Sampling)}:
        raise TypeError(f"options: expected some of temperature, top_k, top_p and key, got {name!r}")
    sampling = Sampling(**options)
    check_sampling(sampling.temperature, sampling.top_k, sampling.top_p)
    if isinstance(token_ids, list | tuple):
        return _continue_list(bind, model, arrays, token_ids, max_new_tokens, sampling, key)
    check_prompt(token_ids, max_new_tokens)
    _check_integers("token_ids", token_ids)
    _check_key(sampling.temperature, key, len(token_ids))
    return _continue_array(bind, model, arrays, jnp.asarray(token_ids), max_new_tokens, sampling, key)


@partial(jax.jit, static_argnums=(0, 1, 4, 5))
def _continue_array(
    bind: Bind, model: Any, arrays: Any, token_ids: Array, max_new_tokens: int, sampling: Sampling, key: Array | None
) -> Array:
    """Prompts of one length, as one compiled program."""
    return continue_tokens(*bind(model, arrays), token_ids, max_new_tokens, sampling.choose, key)


def _continue_list(
    bind: Bind,
    model: Any,
    arrays: Any,
    prompts: Sequence[Any],
    max_new_tokens: int,
    sampling: Sampling,
    key: Array | None,
) -> list[Array]:
    """Prompts of any lengths, packed."""
    for number, prompt in enumerate(prompts):
        _check_integers(f"token_ids[{number}]", prompt, "an array of integers [T]")
    borders = check_prompts(prompts, max_new_tokens)
    _check_key(sampling.temperature, key, len(prompts))
    found = [jnp.asarray(prompt) for prompt in prompts]
    if not found or max_new_tokens == 0:
        return found
    packed = jnp.concatenate(found)[None]
    new = _continue_packed(bind, model, arrays, packed, tuple(borders), max_new_tokens, sampling, key)
    return [jnp.concatenate([prompt, more.astype(prompt.dtype)]) for prompt, more in zip(found, new, strict=True)]


@partial(jax.jit, static_argnums=(0, 1, 4, 5, 6))
def _continue_packed(
    bind: Bind,
    model: Any,
    arrays: Any,
    packed: Array,
    borders: tuple[int, ...],
    max_new_tokens: int,
    sampling: Sampling,
    key: Array | None,
) -> Array:
    """What follows each of several prompts that stand in one row, as one compiled program."""
    read, advance = bind(model, arrays)
    logits, cache = read(packed, cu_seqlens=np.array(borders))
    return new_tokens(logits[0, np.array(borders[1:]) - 1], cache, advance, max_new_tokens, sampling.choose, key)


def _bind(config: Any, params: Any) -> tuple[Read, Advance]:
    return partial(apply, config, params, return_cache=True), partial(step, config, params)


def _check_integers(name: str, tokens: Any, what: str = "integers") -> None:
    if not hasattr(tokens, "shape") or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise TypeError(f"{name}: expected {what}, got {getattr(tokens, 'dtype', type(tokens).__name__)}")


def _check_key(temperature: float, key: Array | None, count: int) -> None:
    if temperature > 0 and key is None:
        raise ValueError(f"key: expected a key for random numbers, since temperature={temperature}, got None")
    if key is not None and _is_for_each(key) and len(key) != count:
        raise ValueError(f"key: expected one for each of {count} prompts, got {len(key)}")


def _is_for_each(key: Array) -> bool:
    """Whether this is one key for each row, as new-style keys or as numbers."""
    return key.ndim > int(not jnp.issubdtype(key.dtype, jax.dtypes.prng_key))


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
    new = new_tokens(logits[:, -1], cache, advance, max_new_tokens, choose, key)
    return jnp.concatenate([token_ids, new.astype(token_ids.dtype)], axis=1)


def new_tokens(
    logits: Float[Array, "B V"],
    cache: Cache,
    advance: Callable[[Array, Cache], tuple[Array, Cache]],
    count: int,
    choose: Callable[[Array, Array | None], Array],
    key: Array | None,
) -> Int[Array, "B C"]:
    """What follows, from the logits and the cache after what was read; arguments as of `continue_tokens`."""

    def choose_at(index: Array | int, logits: Array) -> Array:
        return choose(logits, None if key is None else _fold_in(key, index)).astype(jnp.int32)

    def body(carry: tuple[Array, Cache], index: Array) -> tuple[tuple[Array, Cache], Array]:
        token, cache = carry
        logits, cache = advance(token, cache)
        chosen = choose_at(index, logits)
        return (chosen, cache), chosen

    first = choose_at(0, logits)
    _, rest = lax.scan(body, (first, cache), jnp.arange(1, count))
    return jnp.concatenate([first[:, None], jnp.swapaxes(rest, 0, 1)], axis=1)


def _fold_in(key: Array, index: Array | int) -> Array:
    if _is_for_each(key):
        return jax.vmap(jax.random.fold_in, (0, None))(key, index)
    return jax.random.fold_in(key, index)


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
        key: key for the draw, or one for each row [B]; not used at temperature 0.
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
    if _is_for_each(key):
        return jax.vmap(partial(jax.random.categorical, axis=-1))(key, scaled)
    return jax.random.categorical(key, scaled, axis=-1)


def _most_likely(logits: Float[Array, "B V"], top_p: float) -> Array:
    """Which tokens are in the smallest set of most likely ones whose probability reaches p."""
    probabilities = jax.nn.softmax(logits, axis=-1)
    order = jnp.argsort(probabilities, axis=-1, descending=True, stable=True)
    ordered = jnp.take_along_axis(probabilities, order, axis=-1)
    # a token stays while those before it have not reached p, so the first always does
    kept = jnp.cumsum(ordered, axis=-1) - ordered < top_p
    return jnp.put_along_axis(jnp.zeros_like(kept), order, kept, axis=-1, inplace=False)
