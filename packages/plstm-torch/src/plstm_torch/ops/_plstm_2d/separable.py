"""D-mode without state-tracking dimensions: a path turns at most once, which gives a closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from plstm_torch.ops._fast_form import FastForm, Tensors
from plstm_torch.ops._plstm_2d.attention import SCORES_IN_CACHE
from plstm_torch.ops._plstm_2d.lines import line
from plstm_torch.ops._plstm_2d.problem import Flips, Gates


def separable_gating(gates: Gates, flips: Flips, direct: Tensor) -> Tensor:
    """Closed form for scalar gates of mode "L", [B, N, N].

    A path turns at most once, so for given source column u and target row y the matrix has rank one in (x, v) per
    orientation, and one batched product sums the orientations. Paths that stay in the column come on top.
    """
    across = line(gates.transition_rl.transpose(2, 3), flips, 0).between[..., 0, :, 0]  # [B, O, y, x, u]
    down = line(gates.transition_du, flips, 1).between[..., 0, :, 0]  # [B, O, u, y, v]
    arriving = down * gates.source_d[..., 0, 0, 0].unsqueeze(3)
    turning = torch.diag_embed(gates.source_r[..., 0, 0, 0])
    if gates.transition_ru is not None:
        turning = turning + gates.transition_ru[..., 0] * arriving
    reading = gates.mark_l[..., 0, 0, 0].transpose(2, 3).unsqueeze(-1) * across
    staying = (gates.upper_mark[..., 0, 0] * arriving).sum(1) + torch.diag_embed(direct)
    (gating,) = _TURNING(reading, turning, staying)
    return gating


def _turning(reading: Tensor, turning: Tensor, staying: Tensor) -> Tensors:
    """G[x, y, u, v] = sum over o of reading[o, y, x, u] turning[o, u, y, v], and staying[u, y, v] where x = u."""
    factors = reading.permute(0, 4, 2, 3, 1).flatten(0, 2), turning.permute(0, 2, 3, 1, 4).flatten(0, 2)
    gating = torch.bmm(*factors).unflatten(0, staying.shape[:3]).permute(0, 3, 2, 1, 4)
    columns = torch.arange(staying.shape[1], device=staying.device)
    same = (columns[:, None] == columns)[:, None, :, None]
    gating = gating + torch.where(same, staying.transpose(1, 2).unsqueeze(1), 0.0)
    return (gating.flatten(3, 4).flatten(1, 2),)


def _grids(staying: Tensor) -> list[slice]:
    """As many grids at a time as one more matrix of their size stays in cache."""
    batch, x, y, _ = staying.shape
    size = max(1, SCORES_IN_CACHE // (x * y) ** 2) if staying.device.type == "cpu" else batch
    return [slice(start, min(start + size, batch)) for start in range(0, batch, size)]


def _turning_forward(reading: Tensor, turning: Tensor, staying: Tensor) -> tuple[Tensors, Tensors]:
    batch, x, y, _ = staying.shape
    (gating,) = _allocate_turning(reading, turning, staying)
    target = gating.view(batch, x, y, x, y)
    for part in _grids(staying):
        left = reading[part].permute(0, 4, 2, 3, 1).flatten(0, 2)
        right = turning[part].permute(0, 2, 3, 1, 4).flatten(0, 2)
        target[part] = torch.bmm(left, right).view(-1, x, y, x, y).permute(0, 3, 2, 1, 4)
    target.diagonal(dim1=1, dim2=3).add_(staying.permute(0, 2, 3, 1))
    return (gating,), ()


def _turning_gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    reading, turning, staying = inputs
    batch, x, y, _ = staying.shape
    grad = cotangents[0].reshape(batch, x, y, x, y)
    d_reading, d_turning = reading.new_empty(reading.shape), turning.new_empty(turning.shape)
    for part in _grids(staying):
        by_turn = grad[part].permute(0, 3, 2, 1, 4).reshape(-1, x, y)
        left = reading[part].permute(0, 4, 2, 3, 1).flatten(0, 2)
        right = turning[part].permute(0, 2, 3, 1, 4).flatten(0, 2)
        d_reading[part] = torch.bmm(by_turn, right.mT).view(-1, x, y, x, reading.shape[1]).permute(0, 4, 2, 3, 1)
        d_turning[part] = torch.bmm(left.mT, by_turn).view(-1, x, y, turning.shape[1], y).permute(0, 3, 1, 2, 4)
    d_staying = grad.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2).contiguous()
    return d_reading, d_turning, d_staying


def _allocate_turning(reading: Tensor, turning: Tensor, staying: Tensor) -> Tensors:
    nodes = staying.shape[1] * staying.shape[2]
    return (staying.new_empty(len(staying), nodes, nodes),)


_TURNING = FastForm("grid_turning", _turning, _turning_forward, _turning_gradients, _allocate_turning, num_outputs=1)
