"""Layers that work on their rank's piece, inside blocks and models that know nothing of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from plstm_torch.context import Cache, Context
from plstm_torch.layers.convolution import Convolution1DLayer
from plstm_torch.layers.plstm_1d import SequenceOperations, pLSTM1DLayer
from plstm_torch.parallel.agreement import Checked
from plstm_torch.parallel.convolution import convolve_piece
from plstm_torch.parallel.pieces import Pieces
from plstm_torch.parallel.plstm_1d import find_pieces, run_piece


@dataclass(frozen=True)
class SequenceSpread:
    """How a layer's sequences are spread over ranks.

    Attributes:
        mesh: of one dimension.
        agree: whether the ranks compare what they are called with.
    """

    mesh: DeviceMesh
    agree: bool

    def __deepcopy__(self, memo: dict[int, Any]) -> SequenceSpread:
        """A copy of a layer computes with the same ranks: process groups cannot be copied."""
        return self

    def run(self, layer: pLSTM1DLayer, x: Tensor, context: Context) -> tuple[Tensor, Cache]:
        """Run a layer on this rank's piece; cache and borders are those of the whole, see `pLSTM1DLayer.forward`."""
        cu_seqlens = context.cu_seqlens

        def check() -> Checked:
            layer.check_sequence(x, context)
            facts = {
                "batch size of x": x.shape[0],
                "dtype of x": x.dtype,
                "requires_grad of x": torch.is_grad_enabled() and x.requires_grad,
                "cu_seqlens": None if cu_seqlens is None else torch.as_tensor(cu_seqlens).tolist(),
                "cache": context.cache is not None,
                "return_cache": context.return_cache,
            }
            return facts, (x.shape[1],)

        pieces = find_pieces(self.mesh, check, cu_seqlens, self.agree)
        operations = SequenceOperations(
            convolve=partial(self._convolve, pieces=pieces),
            plstm_1d=partial(self._plstm_1d, pieces=pieces, with_last=context.return_cache),
        )
        return layer.run_sequence(x, context, operations)

    def _convolve(
        self, conv: Convolution1DLayer, x: Tensor, window: Tensor | None, cu_seqlens: Tensor | None, *, pieces: Pieces
    ) -> tuple[Tensor, Tensor | None]:
        windows = None if window is None else window.unflatten(0, (x.shape[0], pieces.count))
        output, after = convolve_piece(conv, x, windows, pieces, self.mesh.get_group())
        return output, None if after is None else after.flatten(0, 1)

    def _plstm_1d(
        self,
        *,
        pieces: Pieces,
        with_last: bool,
        initial_state: Tensor | None,
        cu_seqlens: Tensor | None,
        return_last_state: bool,
        implementation: str,
        **tensors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The op with the states of the whole; where nobody wants the last ones, zeros that take no memory."""
        states = initial_state if initial_state is None or cu_seqlens is not None else initial_state.unsqueeze(1)
        options: dict[str, Any] = {"implementation": implementation}
        output, last = run_piece(
            tuple(tensors.values()), states, pieces, self.mesh.get_group(), options, with_last=with_last
        )
        if last is None:
            key, value, transition = tensors["key"], tensors["value"], tensors["transition"]
            shape = (key.shape[0], pieces.count, key.shape[2], value.shape[2], transition.shape[-1])
            last = output.new_zeros(()).expand(shape)
        return output, last if cu_seqlens is not None else last.squeeze(1)
