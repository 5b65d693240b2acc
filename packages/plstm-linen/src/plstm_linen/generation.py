"""Sampling text from a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from jaxtyping import Array, Int

from plstm_jax.generation import Advance, Read, generate_from
from plstm_linen.module import Module


def generate(
    module: Module,
    variables: Mapping[str, Any],
    token_ids: Int[Array, "B T"] | Sequence[Array],
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    key: Array | None = None,
) -> Int[Array, "B T2"] | list[Array]:
    """Continue token sequences as one program; see `plstm_jax.generate`, which this is with a module for a config.

    Args:
        module: a language model.
        variables: its variables.
        token_ids: prompts [B, T] with T >= 1, or a list of prompts [T] of any lengths >= 1.
        max_new_tokens: how many tokens follow.
        temperature: 0 takes the most likely token.
        top_k: a number of tokens to choose from.
        top_p: a probability that those to choose from reach.
        key: for the draws, which temperature 0 does without.

    Returns:
        Tokens [B, T + max_new_tokens], or a list of tokens [T + max_new_tokens].

    Raises:
        TypeError: if the tokens are no integers.
        ValueError: if the prompt is empty, an option is outside its range, or the key is missing.
    """
    options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "key": key}
    return generate_from(_bind, module, variables, token_ids, max_new_tokens, **options)


def _bind(module: Module, variables: Mapping[str, Any]) -> tuple[Read, Advance]:
    return partial(module.apply, variables, return_cache=True), partial(module.apply, variables, method="step")
