"""Masked linear attention: the outputs of nodes from the inputs of nodes through a gating matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from plstm_torch.ops._contract import contract
from plstm_torch.ops._fast_form import FastForm, Tensors
from plstm_torch.ops._plstm_2d.columns import diagonal

# Scores are computed for as many grids at a time as stay in cache; large fresh temporaries cost page faults.
SCORES_IN_CACHE = 2**20


def masked_attention(query: Tensor, key: Tensor, value: Tensor, gating: Tensor) -> Tensor:
    """H[n, o] = sum over m, q, k, v of (Q[n, q] · K[m, k]) G[n, o, q, m, k, v] V[m, v].

    Args:
        query: [*, M, DK, JQ], M of the nodes or all.
        key: [*, N, DK, JK].
        value: [*, N, DV, JV].
        gating: [*, M, JO, JQ, N, JK, JV].

    Returns:
        [*, M, DV, JO].
    """
    if gating.shape[-5:-3] == (1, 1) and gating.shape[-2:] == (1, 1):
        vectors = [tensor.reshape(-1, *tensor.shape[-3:-1]) for tensor in (query, key, value)]
        (output,) = _ATTENTION(*vectors, gating.reshape(-1, query.shape[-3], key.shape[-3]))
        return output.view(*query.shape[:-2], value.shape[-2], 1)
    scores = contract("...ndq,...mdk->...nqmk", query, key)
    weights = contract("...nqmk,...noqmkv->...nomv", scores, gating)
    return contract("...nomv,...mev->...neo", weights, value)


def with_direct(gating: Tensor, direct: Tensor) -> Tensor:
    """Adds the weights of the nodes' own inputs [*, N, JO, JQ, JK, JV] to the diagonal of a gating matrix."""
    own = diagonal(direct.flatten(-2).flatten(-3, -2))
    return gating + own.view(gating.shape)


def _formula(query: Tensor, key: Tensor, value: Tensor, gating: Tensor) -> Tensors:
    return (((query @ key.mT) * gating) @ value,)


def attend(query: Tensor, key: Tensor, value: Tensor, gating: Tensor) -> Tensor:
    """[B, M, DV] of scalar gates, [B, M, N] as `gating`, written by hand: autograd does not see it."""
    (output,) = _allocate(query, key, value, gating)
    (scores,) = _buffers(gating, 1)
    for part in _parts(gating, scores):
        weights = torch.bmm(query[part], key[part].mT, out=scores[: part.stop - part.start]).mul_(gating[part])
        torch.bmm(weights, value[part], out=output[part])
    return output


def attention_gradients(query: Tensor, key: Tensor, value: Tensor, gating: Tensor, grad: Tensor) -> Tensors:
    """Gradients of the four; the scores are computed again, what masks them is needed for its own gradient anyway."""
    grad = grad.contiguous()
    results = tuple(
        torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (query, key, value, gating)
    )
    dq, dk, dv, dg = results
    scores, weights = _buffers(gating, 2)
    for part in _parts(gating, scores):
        size = part.stop - part.start
        score = torch.bmm(query[part], key[part].mT, out=scores[:size])
        weight = torch.bmm(grad[part], value[part].mT, out=weights[:size])
        torch.mul(score, weight, out=dg[part])
        torch.bmm(score.mul_(gating[part]).mT, grad[part], out=dv[part])
        torch.bmm(weight.mul_(gating[part]), key[part], out=dq[part])
        torch.bmm(weight.mT, query[part], out=dk[part])
    return results


def _forward(query: Tensor, key: Tensor, value: Tensor, gating: Tensor) -> tuple[Tensors, Tensors]:
    return (attend(query, key, value, gating),), ()


def _gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    query, key, value, gating = inputs
    return attention_gradients(query, key, value, gating, cotangents[0])


def _buffers(gating: Tensor, count: int) -> Tensors:
    grids = len(gating)
    if gating.device.type == "cpu":
        grids = min(grids, max(1, SCORES_IN_CACHE // max(1, gating[:1].numel())))
    return gating.new_empty(count, max(1, grids), *gating.shape[1:]).unbind(0)


def _parts(gating: Tensor, buffer: Tensor) -> list[slice]:
    grids, step = len(gating), len(buffer)
    return [slice(start, min(start + step, grids)) for start in range(0, grids, step)]


def _allocate(query: Tensor, key: Tensor, value: Tensor, gating: Tensor) -> Tensors:
    return (query.new_empty(*query.shape[:2], value.shape[2]),)


_ATTENTION = FastForm("grid_attention", _formula, _forward, _gradients, _allocate, num_outputs=1)
