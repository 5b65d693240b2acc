"""From a sequence to chunks and back: chunk size, ragged end, and the choice between scalar and matrix gates."""

from __future__ import annotations

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import Tensors
from plstm_torch.ops._plstm_1d.matrix import plstm_1d_matrix
from plstm_torch.ops._plstm_1d.packing import constant_positions, layout
from plstm_torch.ops._plstm_1d.scalar import plstm_1d_scalar


def plstm_1d_chunkwise(
    inputs: Tensors,
    initial_states: Tensor,
    chunk_size: int | None,
    bounds: Tensor | None,
    borders: Tensor,
    plain: bool = False,
) -> tuple[Tensor, Tensor]:
    """Output and last states, chunk by chunk.

    Args:
        inputs: query, key, value, source, transition, mark (scaled), direct (scaled), shapes as in `plstm_1d`, T >= 1,
            all in the compute dtype.
        initial_states: [B,S,DK,DV,JT].
        chunk_size: steps per chunk, or None.
        bounds: boundaries of the S packed sequences [S+1]; None where S = 1.
        borders: steps at which sequences without states start [B,R], where their gates keep them apart and S = 1.
        plain: in operations of torch alone, which may be differentiated in any way.

    Returns:
        [B,T,DV,JO] and [B,S,DK,DV,JT].
    """
    length, sequences = inputs[0].shape[1], initial_states.shape[1]
    if chunk_size is None:
        mask_entries = inputs[6].shape[2:].numel()
        chunk = auto_chunk_size(-(-length // sequences), inputs[4].shape[-1], mask_entries)
    else:
        chunk = min(chunk_size, length)
    if bounds is None:
        missing, tensors = -length % chunk, list(inputs)
        if _varies(length) or missing:
            tensors = [_pad(tensor, missing) for tensor in inputs]
            # the identity, so that the state after the last real step is the one that leaves the last chunk
            beyond = torch.arange(length + missing, device=inputs[4].device) >= length
            tensors[4] = torch.where(beyond[:, None, None], _identity(inputs[4], 1), tensors[4])
        starts = inputs[0].new_zeros(inputs[0].shape[0], 1)
        output, last_states = _run_chunks(tensors, (initial_states, starts, borders), chunk, plain)
        return output[:, :length], last_states
    places = layout(bounds, length, chunk)
    tensors = [_place(tensor, places.steps, places.filled) for tensor in inputs]
    empty = ~places.filled[:, None, None]
    tensors[4] = tensors[4] + empty * _identity(inputs[4], 1)
    starts = constant_positions(places.starts, inputs[0])
    output, last_states = _run_chunks(tensors, (initial_states, starts, borders), chunk, plain)
    return output.index_select(1, places.places), last_states


def _run_chunks(
    inputs: list[Tensor], sequences: tuple[Tensor, Tensor, Tensor], chunk: int, plain: bool
) -> tuple[Tensor, Tensor]:
    """The form for these dimensions, on whole chunks; output [B,N*C,DV,JO]."""
    states, starts, borders = sequences
    if inputs[4].shape[-1] == inputs[6].shape[2:].numel() == 1:
        chunks = [_chunks(tensor.flatten(2), chunk) for tensor in inputs[:3]]
        chunks += [_chunks(tensor.flatten(1), chunk) for tensor in inputs[3:]]
        scalar = plstm_1d_scalar.formula if plain else plstm_1d_scalar
        output, last_states = scalar(*chunks, states.squeeze(-1).contiguous(), starts, borders)
        return output.flatten(1, 2).unsqueeze(-1), last_states.unsqueeze(-1)
    chunks = [_chunks(tensor, chunk) for tensor in inputs]
    matrix = plstm_1d_matrix.formula if plain else plstm_1d_matrix
    output, last_states = matrix(*chunks, states.permute(0, 1, 4, 3, 2).contiguous(), starts, borders)
    return output.flatten(1, 2), last_states.permute(0, 1, 4, 3, 2)


def auto_chunk_size(length: int, dim_t: int, mask_entries: int) -> int:
    """Steps per chunk: as measured, and such that little has to be padded.

    Args:
        length: T.
        dim_t: JT.
        mask_entries: entries of the mask for each pair of steps, JO * JQ * JK * JV.

    Returns:
        Chunk size of at most T; where T varies in a compiled program, the same for any.
    """
    if dim_t == mask_entries == 1:
        best = 32
    else:  # large states want long chunks, large masks short ones
        best = 16 if dim_t >= 4 * mask_entries else 8
    if _varies(length):
        return best
    if length <= best + best // 2:
        return length
    step = max(1, best // 8)
    candidates = range(best - 2 * step, best + 2 * step + 1, step)
    return min(candidates, key=lambda size: (-length % size, abs(size - best)))


def _varies(length: int) -> bool:
    """Whether a program is compiled for any length; to ask for this one's value would tie the program to it."""
    if not torch.compiler.is_compiling():
        return False
    from torch.fx.experimental.symbolic_shapes import has_static_value  # loads the compiler

    return not has_static_value(length)


def _pad(tensor: Tensor, missing: int) -> Tensor:
    return torch.nn.functional.pad(tensor, (0, 0) * (tensor.ndim - 2) + (0, missing))


def _place(tensor: Tensor, steps: Tensor, filled: Tensor) -> Tensor:
    """Steps [B,T,...] in their places [B,N*C,...], zero where there is none."""
    trailing = (1,) * (tensor.dim() - 2)
    return torch.where(filled.view(-1, *trailing), tensor.index_select(1, steps), 0.0)


def _identity(transition: Tensor, steps: int) -> Tensor:
    size = transition.shape[-1]
    eye = torch.eye(size, dtype=transition.dtype, device=transition.device)
    return eye.expand(transition.shape[0], steps, size, size)


def _chunks(tensor: Tensor, chunk: int) -> Tensor:
    return tensor.unflatten(1, (-1, chunk)).contiguous()
