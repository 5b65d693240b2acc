"""Checks of how text is to be continued, with the same words in every backend."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Check how tokens are to be drawn.

    Args:
        temperature: divides the logits; 0 is greedy.
        top_k: none, or how many of the most likely tokens to keep.
        top_p: none, or the probability that the kept ones reach.

    Raises:
        ValueError: if an option is outside its range.
    """
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature: expected a finite number >= 0 (0 is greedy), got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k: expected None or an integer >= 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p: expected None or a number in (0, 1], got {top_p}")


def check_prompt(token_ids: Any, max_new_tokens: int) -> None:
    """Check what is to be continued, and how far.

    Args:
        token_ids: the prompt, anything with a `shape`.
        max_new_tokens: number of tokens to append.

    Raises:
        ValueError: if the prompt is empty or has another rank, or the number of tokens is negative.
    """
    shape = tuple(token_ids.shape)
    if len(shape) != 2 or shape[1] == 0:
        raise ValueError(f"token_ids: expected a prompt [B, T] with T >= 1, got shape {shape}")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens: expected an integer >= 0, got {max_new_tokens}")


def check_prompts(prompts: Sequence[Any], max_new_tokens: int) -> list[int]:
    """Check prompts of different lengths.

    Args:
        prompts: the prompts, anything with a `shape`.
        max_new_tokens: number of tokens to append.

    Returns:
        Where each begins if they stand one after the other, and where the last one ends.

    Raises:
        ValueError: if a prompt is empty or has another rank, or the number of tokens is negative.
    """
    borders = [0]
    for number, prompt in enumerate(prompts):
        shape = tuple(prompt.shape)
        if len(shape) != 1 or shape[0] == 0:
            raise ValueError(f"token_ids[{number}]: expected a prompt [T] with T >= 1, got shape {shape}")
        borders.append(borders[-1] + shape[0])
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens: expected an integer >= 0, got {max_new_tokens}")
    return borders
