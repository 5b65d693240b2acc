"""Batches with padding: the tokens that are there, packed into one row and put back.

Padding is taken out before anything is computed, wherever it stands: what it holds, even infinite numbers, reaches no
output and no state.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a padded batch are.

    Attributes:
        places: positions of the N tokens in the batch laid out row after row [N].
        cu_seqlens: borders of the rows among them [B + 1]; a row without tokens is an empty sequence.
        shape: sizes (B, T) of the batch.
    """

    places: Int[Tensor, " N"]
    cu_seqlens: Int[Tensor, " B1"]
    shape: tuple[int, int]

    def pack(self, batch: Shaped[Tensor, "B T *more"]) -> Shaped[Tensor, "1 N *more"]:
        """Take the tokens out of a batch, into one row."""
        return batch.flatten(0, 1).index_select(0, self.places).unsqueeze(0)

    def unpack(self, row: Shaped[Tensor, "1 N *more"]) -> Shaped[Tensor, "B T *more"]:
        """Put a row back into the batch, with zeros in place of padding."""
        empty = row.new_zeros(self.shape[0] * self.shape[1], *row.shape[2:])
        return empty.index_copy(0, self.places, row.squeeze(0)).unflatten(0, self.shape)


def packing(attention_mask: Shaped[Tensor, "B T"], shape: tuple[int, int]) -> Packing | None:
    """Find the tokens of a padded batch.

    Waits for the device once, since the number of tokens is needed.

    Args:
        attention_mask: one or True where there is a token, zero or False where there is padding [B, T]; on either side
            or in between.
        shape: sizes (B, T) that it must have.

    Returns:
        The packing; None where nothing is padded.

    Raises:
        ValueError: the mask has another shape.
    """
    if tuple(attention_mask.shape) != tuple(shape):
        raise ValueError(f"attention_mask: expected shape {tuple(shape)}, got {tuple(attention_mask.shape)}")
    mask = attention_mask != 0
    if bool(mask.all()):
        return None
    lengths = mask.sum(1)
    cu_seqlens = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    return Packing(mask.flatten().nonzero().squeeze(1), cu_seqlens, (mask.shape[0], mask.shape[1]))
