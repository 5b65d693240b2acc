"""Checks of how text is to be continued, with the same words in every backend."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Check how tokens are to be drawn.

    Args:
        temperature: divides the logits; 0 is greedy.
        top_k: none, or how many of the most likely tokens to keep.
        top_p: none, or the probability that the kept ones reach.

    Raises:
        TypeError: if an option is no number.
        ValueError: if an option is outside its range.
    """
    if isinstance(temperature, bool) or not isinstance(temperature, Real):
        raise TypeError(f"temperature: expected a number, got {type(temperature).__name__}")
    if not 0 <= temperature < math.inf or temperature > sys.float_info.max:
        raise ValueError(f"temperature: expected a finite number >= 0 (0 is greedy), got {_short(temperature)}")
    if top_k is not None:
        _check_integer("top_k", top_k, 1, "None or ")
    if top_p is not None and (isinstance(top_p, bool) or not isinstance(top_p, Real)):
        raise TypeError(f"top_p: expected None or a number, got {type(top_p).__name__}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p: expected None or a number in (0, 1], got {_short(top_p)}")


def check_count(max_new_tokens: int) -> None:
    """Check how many tokens are to be appended.

    Args:
        max_new_tokens: number of tokens.

    Raises:
        TypeError: if it is no integer.
        ValueError: if it is negative.
    """
    _check_integer("max_new_tokens", max_new_tokens, 0)


def _check_integer(name: str, value: object, least: int, others: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected {others}an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected {others}an integer >= {least}, got {_short(value)}")


def _short(value: object) -> str:
    """A number as text; that of a huge integer would be as long as it is."""
    return repr(value) if not isinstance(value, int) or abs(value) < 1 << 64 else "a number of more than 64 bits"


def check_prompt(token_ids: Any, max_new_tokens: int) -> None:
    """Check what is to be continued, and how far.

    Args:
        token_ids: the prompt, anything with a `shape`.
        max_new_tokens: number of tokens to append.

    Raises:
        TypeError: if the number of tokens is no integer.
        ValueError: if the prompt is empty or has another rank, or the number of tokens is negative.
    """
    shape = tuple(token_ids.shape)
    if len(shape) != 2 or shape[1] == 0:
        raise ValueError(f"token_ids: expected a prompt [B, T] with T >= 1, got shape {shape}")
    check_count(max_new_tokens)


def check_prompts(prompts: Sequence[Any], max_new_tokens: int) -> list[int]:
    """Check prompts of different lengths.

    Args:
        prompts: the prompts, anything with a `shape`.
        max_new_tokens: number of tokens to append.

    Returns:
        Where each begins if they stand one after the other, and where the last one ends.

    Raises:
        TypeError: if the number of tokens is no integer.
        ValueError: if a prompt is empty or has another rank, or the number of tokens is negative.
    """
    borders = [0]
    for number, prompt in enumerate(prompts):
        shape = tuple(prompt.shape)
        if len(shape) != 1 or shape[0] == 0:
            raise ValueError(f"token_ids[{number}]: expected a prompt [T] with T >= 1, got shape {shape}")
        borders.append(borders[-1] + shape[0])
    check_count(max_new_tokens)
    return borders
