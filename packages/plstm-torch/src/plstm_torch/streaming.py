"""Text as it is generated, token by token, until each sequence has ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from plstm_torch.context import require_causal, require_whole
from plstm_torch.endings import Endings
from plstm_torch.generation import Decoder, sample_tokens


def stream(
    model: Decoder,
    token_ids: Int[Tensor, "B T"],
    max_new_tokens: int,
    *,
    eos: int | None = None,
    stop: Sequence[Sequence[int]] = (),
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
) -> Iterator[Int[Tensor, " B"]]:
    """Continue token sequences, and hand out the tokens as they are drawn.

    The draws are those of `generate` with the same seed. The model is in evaluation
    mode while a token is computed, and as it was in between.

    Args:
        model: a model with `__call__(token_ids, return_cache=True)` and `step`.
        token_ids: prompt [B, T] with T >= 1.
        max_new_tokens: largest number of tokens.
        eos: token that ends a sequence; it is handed out.
        stop: sequences of tokens that end a sequence; they are handed out. The prompt does not count.
        temperature: as in `generate`.
        top_k: as in `generate`.
        top_p: as in `generate`.
        seed: as in `generate`.

    Yields:
        The next token of each sequence [B]; `eos`, or 0 without one, for those that have ended. There is no next one
        once all have.

    Raises:
        ValueError: an empty prompt, a negative number of tokens, an option outside its range, or a model that is not
            causal or is spread over processes.
    """
    require_causal(model, "stream")
    require_whole(model, "stream")
    if token_ids.ndim != 2 or token_ids.shape[1] == 0:
        raise ValueError(f"token_ids: expected a prompt [B, T] with T >= 1, got shape {tuple(token_ids.shape)}")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens: expected an integer >= 0, got {max_new_tokens}")
    endings = Endings(eos, stop, token_ids.shape[0])
    generator = torch.Generator(device=token_ids.device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    cache: Any = None
    drawn = token_ids
    for _ in range(max_new_tokens):
        last, cache = _next_logits(model, drawn, cache)
        drawn = sample_tokens(last, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
        drawn = endings.take(drawn)
        yield drawn.to(token_ids.dtype)
        if endings.all_ended:
            return


@torch.no_grad()
def _next_logits(model: Decoder, tokens: Tensor, cache: Any) -> tuple[Tensor, Any]:
    """Read the prompt [B, T], or the last tokens [B], in evaluation mode."""
    was_training = model.training
    if was_training:
        model.train(False)
    try:
        if cache is not None:
            return model.step(tokens, cache)
        logits, cache = model(tokens, return_cache=True)
        return logits[:, -1], cache
    finally:
        if was_training:
            model.train(True)
