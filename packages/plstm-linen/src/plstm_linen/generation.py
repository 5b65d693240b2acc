"""Sampling text from a language model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from jaxtyping import Array, Int

from plstm_jax.generation import Advance, Read, check_generation, run_generation
from plstm_linen.module import Module


def generate(
    module: Module,
    variables: Mapping[str, Any],
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
        module: a language model.
        variables: its variables.
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
    return run_generation(_bind, module, variables, token_ids, max_new_tokens, temperature, top_k, top_p, key)


def _bind(module: Module, variables: Mapping[str, Any]) -> tuple[Read, Advance]:
    return partial(module.apply, variables, return_cache=True), partial(module.apply, variables, method="step")
