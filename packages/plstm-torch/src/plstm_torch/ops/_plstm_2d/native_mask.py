"""Masked attention on a small grid, with a mask from kernels for CPUs."""

from __future__ import annotations

import torch
from torch import Tensor

import plstm_native
from plstm_torch.ops._fast_form import Tensors
from plstm_torch.ops._native import addresses, dtype_name
from plstm_torch.ops._plstm_2d.attention import SCORES_IN_CACHE, attend, attention_gradients
from plstm_torch.ops._plstm_2d.problem import flips_of


def masked(tensors: Tensors, names: tuple[str, ...], mode: str) -> Tensors:
    """Run the op; right for finite numbers.

    Args:
        tensors: query, key [B, X, Y, DK], value [B, X, Y, DV], direct [B, X, Y] and gates [B, O, X, Y].
        names: theirs.
        mode: of the gates, as the kernels name it.

    Returns:
        Output [B, X, Y, DV].
    """
    output = tensors[2].new_empty(tensors[2].shape)
    for grids in _together(tensors[0]):
        query, key, value = (_flat(tensor[grids]) for tensor in tensors[:3])
        rest = [tensor[grids] for tensor in tensors[3:]]
        output[grids].flatten(1, 2).copy_(attend(query, key, value, _mask(tuple(rest), names[3:], mode)))
    return (output,)


def masked_gradients(tensors: Tensors, cotangent: Tensor, names: tuple[str, ...], mode: str) -> Tensors:
    """The gradients, for which the mask is made again.

    Args:
        tensors: as `masked` takes them.
        cotangent: of the output [B, X, Y, DV].
        names: as `masked` takes them.
        mode: as `masked` takes it.

    Returns:
        One for each of the tensors.
    """
    results = tuple(torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in tensors)
    for grids in _together(tensors[0]):
        query, key, value, grad = (_flat(tensor[grids]) for tensor in (*tensors[:3], cotangent))
        rest = [tensor[grids] for tensor in tensors[3:]]
        mask = _mask(tuple(rest), names[3:], mode)
        *of_vectors, of_mask = attention_gradients(query, key, value, mask, grad)
        for result, gradient in zip(results[:3], of_vectors, strict=True):
            result[grids].flatten(1, 2).copy_(gradient)
        _mask_gradients(tuple(rest), tuple(result[grids] for result in results[3:]), of_mask, names[3:], mode)
    return results


def _together(query: Tensor) -> list[slice]:
    """As many grids at a time as keep scores in the cache, and a mask for every thread to make."""
    batch, nodes = query.shape[0], query.shape[1] * query.shape[2]
    step = max(torch.get_num_threads(), SCORES_IN_CACHE // nodes**2)
    return [slice(start, min(start + step, batch)) for start in range(0, batch, step)]


def _flat(vectors: Tensor) -> Tensor:
    return vectors.flatten(1, 2).contiguous()


def _sizes(gates: dict[str, Tensor], mode: str) -> plstm_native.GridSizes:
    batch, x, y = gates["direct"].shape
    return plstm_native.GridSizes(
        dtype=dtype_name(gates["direct"]), batch=batch, flips=flips_of(gates["source_r"].shape[1]), x=x, y=y,
        dk=0, dv=0, mode=mode, threads=torch.get_num_threads(),
    )  # fmt: skip


def _mask(gates: Tensors, names: tuple[str, ...], mode: str) -> Tensor:
    """[B, N, N]."""
    named = {name: gate.contiguous() for name, gate in zip(names, gates, strict=True)}
    nodes = named["direct"][0].numel()
    mask = gates[0].new_empty(len(gates[0]), nodes, nodes)
    plstm_native.grid_mask(_sizes(named, mode), addresses(named | {"mask": mask}))
    return mask


def _mask_gradients(gates: Tensors, results: Tensors, of_mask: Tensor, names: tuple[str, ...], mode: str) -> None:
    named = {name: gate.contiguous() for name, gate in zip(names, gates, strict=True)}
    written = {f"d_{name}": result for name, result in zip(names, results, strict=True)}
    plstm_native.grid_mask_gradients(_sizes(named, mode), addresses(named | written | {"d_mask": of_mask}))
