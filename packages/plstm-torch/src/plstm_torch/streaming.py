"""Text as it is generated, token by token, until each sequence has ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from plstm_torch.context import require_causal, require_whole
from plstm_torch.generation import Decoder, sample_tokens


class Endings:
    """Which sequences have ended: by a token, or by a sequence of tokens.

    Args:
        eos: token that ends a sequence, or None.
        stop: sequences of tokens that do.
        rows: number of sequences B.

    Raises:
        ValueError: a negative token, or a stop without tokens.
    """

    def __init__(self, eos: int | None, stop: Sequence[Sequence[int]], rows: int) -> None:
        if eos is not None and eos < 0:
            raise ValueError(f"eos: expected None or a token >= 0, got {eos}")
        if any(len(tokens) == 0 or min(tokens) < 0 for tokens in stop):
            raise ValueError(f"stop: expected sequences of at least one token >= 0, got {stop!r}")
        self._stops = [list(tokens) for tokens in stop] + ([] if eos is None else [[eos]])
        self._filling = 0 if eos is None else eos
        self._longest = max(map(len, self._stops), default=0)
        self._seen: list[list[int]] = [[] for _ in range(rows)]
        self._ended = [False] * rows

    @property
    def all_ended(self) -> bool:
        """Whether no sequence goes on."""
        return bool(self._stops) and all(self._ended)

    def take(self, tokens: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Take the next token of each sequence: those that had ended before get `eos`, or 0 without one."""
        if not self._stops:  # nothing to wait for the device for
            return tokens
        shown = [self._filling if ended else token for token, ended in zip(tokens.tolist(), self._ended, strict=True)]
        for row, token in enumerate(shown):
            if not self._ended[row]:
                self._seen[row] = [*self._seen[row], token][-self._longest :]
                self._ended[row] = any(self._seen[row][-len(stop) :] == stop for stop in self._stops)
        return torch.tensor(shown, dtype=tokens.dtype, device=tokens.device)


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
