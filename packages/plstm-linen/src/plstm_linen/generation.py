"""Sampling text from a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from jaxtyping import Array, Int

from plstm_config.checks import check_causal
from plstm_jax.generation import Advance, Read, generate_from
from plstm_linen.module import Module


def generate(
    module: Module,
    variables: Mapping[str, Any],
    token_ids: Int[Array, "B T"] | Sequence[Array],
    max_new_tokens: int,
    **options: Any,
) -> Int[Array, "B T2"] | list[Array]:
    """Continue token sequences as one program: `plstm_jax.generate` with a module and its variables.

    Args:
        module: a language model.
        variables: its variables.
        token_ids: prompts [B, T] with T >= 1, or a list of prompts [T] of any lengths >= 1.
        max_new_tokens: number of tokens to append.
        options: `temperature`, `top_k`, `top_p` and `key` as `plstm_jax.generate` has them.

    Returns:
        Tokens [B, T + max_new_tokens], or a list of tokens [T + max_new_tokens].

    Raises:
        TypeError: if the tokens are no integers.
        ValueError: if the prompt is empty, an option is outside its range, the key is missing, or the model is not
            causal.
    """
    check_causal(module.config.kind, type(module).__name__, ["generate"])
    return generate_from(_bind, module, variables, token_ids, max_new_tokens, **options)


def _bind(module: Module, variables: Mapping[str, Any]) -> tuple[Read, Advance]:
    return partial(module.apply, variables, return_cache=True), partial(module.apply, variables, method="step")
