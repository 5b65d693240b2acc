"""The recurrent cache as `generate` of transformers hands it around."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from plstm_torch.context import Cache


class PlstmCache:
    """What a language model knows of the past: states of fixed size, however long it is.

    A forward pass replaces the states of the cache that it is given. `copy.deepcopy` keeps a prompt's for several
    continuations.

    Attributes:
        states: cache of the model, None before the first token.
        length: number of positions that were read, padding included.
    """

    # what transformers asks of caches
    is_compileable = False
    is_croppable = False
    is_linear = (True,)

    def __init__(self) -> None:
        self.states: Cache | None = None
        self.length = 0

    def update(self, states: Cache, length: int) -> None:
        """Take the states after `length` more positions."""
        self.states = states
        self.length += length

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of positions that were read."""
        return self.length

    def get_max_cache_shape(self) -> int:
        """Largest number of positions: there is none."""
        return -1

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let each row continue another one, as beam search asks."""
        self._map(lambda tensor: tensor.index_select(0, beam_idx.to(tensor.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Let each row stand there several times."""
        self._map(lambda tensor: tensor.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        self._map(lambda tensor: tensor[indices])

    def reset(self) -> None:
        """Forget everything."""
        self.states, self.length = None, 0

    def _map(self, function: Callable[[Tensor], Tensor]) -> None:
        if self.states is not None:
            self.states = _mapped(self.states, function)


def _mapped(tree: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(tree, Tensor):
        return function(tree)
    return {name: _mapped(part, function) for name, part in tree.items()}
