"""From a sequence to chunks and back: chunk size, ragged end, and the choice between scalar and matrix gates."""

from __future__ import annotations

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import Tensors
from plstm_torch.ops.plstm_1d.matrix import plstm_1d_matrix
from plstm_torch.ops.plstm_1d.scalar import plstm_1d_scalar


def plstm_1d_chunkwise(
    inputs: Tensors,
    initial_state: Tensor,
    chunk_size: int | None,
) -> tuple[Tensor, Tensor]:
    """Output and last state, chunk by chunk.

    Args:
        inputs: query, key, value, source, transition, mark (scaled), direct (scaled), shapes as in `plstm_1d`, T >= 1,
            all in the compute dtype.
        initial_state: [B,DK,DV,JT].
        chunk_size: steps per chunk, or None.

    Returns:
        [B,T,DV,JO] and [B,DK,DV,JT].
    """
    length, transition, direct = inputs[0].shape[1], inputs[4], inputs[6]
    dim_o, dim_q, dim_k, dim_v = direct.shape[2:]
    dim_t, mask_entries = transition.shape[-1], dim_o * dim_q * dim_k * dim_v
    scalar = dim_t == mask_entries == 1
    chunk = auto_chunk_size(length, dim_t, mask_entries) if chunk_size is None else min(chunk_size, length)
    missing = -length % chunk
    tensors = [_pad(tensor, missing) for tensor in inputs]
    if missing:  # the identity, so that the state after the last real step is the one that leaves the last chunk
        tensors[4] = torch.cat([transition, _identity(transition, missing)], 1)
    if scalar:
        chunks = [_chunks(tensor.flatten(2), chunk) for tensor in tensors[:3]]
        chunks += [_chunks(tensor.flatten(1), chunk) for tensor in tensors[3:]]
        output, last_state = plstm_1d_scalar(*chunks, initial_state.squeeze(-1).contiguous())
        output, last_state = output.unsqueeze(-1), last_state.unsqueeze(-1)
    else:
        chunks = [_chunks(tensor, chunk) for tensor in tensors]
        output, last_state = plstm_1d_matrix(*chunks, initial_state.movedim(-1, 1).contiguous())
        last_state = last_state.movedim(1, -1)
    return output.flatten(1, 2)[:, :length], last_state


def auto_chunk_size(length: int, dim_t: int, mask_entries: int) -> int:
    """Steps per chunk: as measured, and such that little has to be padded.

    Args:
        length: T.
        dim_t: JT.
        mask_entries: entries of the mask for each pair of steps, JO * JQ * JK * JV.

    Returns:
        Chunk size of at most T.
    """
    if dim_t == mask_entries == 1:
        best = 32
    else:  # large states want long chunks, large masks short ones
        best = 16 if dim_t >= 4 * mask_entries else 8
    if length <= best + best // 2:
        return length
    step = max(1, best // 8)
    candidates = range(best - 2 * step, best + 2 * step + 1, step)
    return min(candidates, key=lambda size: (-length % size, abs(size - best)))


def _pad(tensor: Tensor, missing: int) -> Tensor:
    if not missing:
        return tensor
    return torch.nn.functional.pad(tensor, (0, 0) * (tensor.ndim - 2) + (0, missing))


def _identity(transition: Tensor, steps: int) -> Tensor:
    size = transition.shape[-1]
    eye = torch.eye(size, dtype=transition.dtype, device=transition.device)
    return eye.expand(transition.shape[0], steps, size, size)


def _chunks(tensor: Tensor, chunk: int) -> Tensor:
    return tensor.unflatten(1, (-1, chunk)).contiguous()
