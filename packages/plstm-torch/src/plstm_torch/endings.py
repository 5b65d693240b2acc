"""When a sequence that is generated has ended."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor


class Endings:
    """Which sequences have ended: by a token, or by a sequence of tokens.

    Args:
        eos: token that ends a sequence, or None.
        stop: sequences of tokens that do.
        rows: number of sequences B.

    Raises:
        TypeError: what ends sequences is no integer, or no sequence of them.
        ValueError: a negative token, or a stop without tokens.
    """

    def __init__(self, eos: int | None, stop: Sequence[Sequence[int]], rows: int) -> None:
        if eos is not None and not _is_integer(eos):
            raise TypeError(f"eos: expected None or a token, got {type(eos).__name__}")
        if eos is not None and eos < 0:
            raise ValueError(f"eos: expected None or a token >= 0, got {eos}")
        if not isinstance(stop, list | tuple) or not all(
            isinstance(tokens, list | tuple) and all(map(_is_integer, tokens)) for tokens in stop
        ):
            raise TypeError(f"stop: expected a list of lists of tokens, got {stop!r:.80}")
        if any(len(tokens) == 0 or min(tokens) < 0 for tokens in stop):
            raise ValueError(f"stop: expected sequences of at least one token >= 0, got {stop!r:.80}")
        self._stops = [list(tokens) for tokens in stop] + ([] if eos is None else [[eos]])
        self._filling = 0 if eos is None else eos
        self._longest = max(map(len, self._stops), default=0)
        self._seen: list[list[int]] = [[] for _ in range(rows)]
        self._ended = [False] * rows
        self.lengths = [0] * rows

    @property
    def all_ended(self) -> bool:
        """Whether no sequence goes on."""
        return bool(self._stops) and all(self._ended)

    def take(self, tokens: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Take the next token of each sequence: those that had ended before get `eos`, or 0 without one.

        `lengths` then counts the tokens of each sequence up to its end.
        """
        self.lengths = [length + (not ended) for length, ended in zip(self.lengths, self._ended, strict=True)]
        if not self._stops:  # nothing to wait for the device for
            return tokens
        shown = [self._filling if ended else token for token, ended in zip(tokens.tolist(), self._ended, strict=True)]
        for row, token in enumerate(shown):
            if not self._ended[row]:
                self._seen[row] = [*self._seen[row], token][-self._longest :]
                self._ended[row] = any(self._seen[row][-len(stop) :] == stop for stop in self._stops)
        return torch.tensor(shown, dtype=tokens.dtype, device=tokens.device)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
