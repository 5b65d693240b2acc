"""The gating matrix of a whole grid, all orientations summed: what the quadratic form masks its scores with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from plstm_torch.ops._contract import contract
from plstm_torch.ops._fast_form import FastForm, Tensors
from plstm_torch.ops.plstm_2d.attention import SCORES_IN_CACHE, masked_attention
from plstm_torch.ops.plstm_2d.lines import line
from plstm_torch.ops.plstm_2d.problem import Flips, Gates, Problem, exchange_axes, map_gates
from plstm_torch.ops.plstm_2d.strips import System, follow
from plstm_torch.ops.plstm_2d.systems import column_systems, diagonal


def quadratic(problem: Problem) -> Tensor:
    """Output [B, X, Y, DV, JO] of a grid that no border state enters."""
    gates, flips = problem.gates, problem.flips
    if gates.is_scalar and gates.mode == "R":
        return quadratic(exchange_axes(problem)).transpose(1, 2)
    if gates.is_scalar and gates.mode == "L":
        gating = separable_gating(gates, flips, problem.direct[..., 0, 0, 0, 0])
        rows = [gating[:, :, None, None, :, None, None]]
    else:
        rows = strip_gating(gates, flips, problem.direct)
    q, k, v = (tensor.flatten(1, 2) for tensor in (problem.query, problem.key, problem.value))
    queries = q.split([row.shape[1] for row in rows], 1)
    outputs = [masked_attention(query, k, v, row) for query, row in zip(queries, rows, strict=True)]
    return torch.cat(outputs, 1).unflatten(1, problem.query.shape[1:3])


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
    gating = gating.contiguous()
    gating.diagonal(dim1=1, dim2=3).add_(staying.permute(0, 2, 3, 1))
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


def strip_gating(gates: Gates, flips: Flips, direct: Tensor) -> list[Tensor]:
    """General form: columns make strips, and maps of low rank connect the strips.

    Args:
        gates: [B, O, X, Y, ...].
        flips: walking directions of the orientations; orientation o walks X backwards where o is odd.
        direct: [B, X, Y, JO, JQ, JK, JV].

    Returns:
        The rows of the gating matrix, strip by strip: [B, nodes, JO, JQ, N, JK, JV].
    """
    x, y, _, jk, jv = gates.source_r.shape[2:]
    jo, jq = gates.mark_l.shape[4:6]
    count = -(-x // max(1, round((x / 2) ** 0.5)))
    width = -(-x // count)
    out, into = width * y * jo * jq, width * y * jk * jv

    def in_strips(tensor: Tensor, axis: int) -> Tensor:
        if count * width > x:
            tensor = pad(tensor, (0, 0) * (tensor.dim() - axis - 1) + (0, count * width - x))
        return tensor.unflatten(axis, (count, width))

    to_state, to_inputs = column_systems(map_gates(gates, lambda gate: in_strips(gate, 2)), flips, border=False)
    own = diagonal(in_strips(direct, 1).flatten(2, 3).flatten(-2).flatten(-3, -2))
    lower = upper = None
    for backwards in sorted({flip_x for flip_x, _ in flips}):
        chosen = slice(int(backwards), None, 2)
        system = follow(to_state[:, chosen], to_inputs[:, chosen], backwards)
        own = own + system.nodes.sum(1).view_as(own)
        connected = _connect(system, backwards)
        lower, upper = (lower, connected) if backwards else (connected, upper)
    rows = []
    for strip, here in enumerate(own.unbind(1)):
        before = here.new_zeros(len(here), out, strip * into) if lower is None else lower[strip]
        after = here.new_zeros(len(here), out, (count - 1 - strip) * into) if upper is None else upper[strip]
        row = torch.cat([before, here, after], 2)
        nodes = min(width, x - strip * width) * y
        row = row[:, : nodes * jo * jq, : x * y * jk * jv]
        rows.append(row.unflatten(2, (x * y, jk, jv)).unflatten(1, (nodes, jo, jq)))
    return rows


def _connect(system: System, backwards: bool) -> list[Tensor]:
    """What reaches every strip from the strips before it on the walk: [B, out, inputs of those strips]."""
    reads = system.read.flatten(3, 4).transpose(1, 2).transpose(2, 3).flatten(3).unbind(1)
    carries, writes = system.carry.unbind(2), system.write.flatten(4).unbind(2)
    count = len(carries)
    arriving = writes[0][..., :0]
    blocks: list[Tensor] = []
    for strip in reversed(range(count)) if backwards else range(count):
        # the orientations share the inner dimension of this product, which thereby sums them
        blocks.append(contract("bij,bjk->bik", reads[strip], arriving.flatten(1, 2)))
        passed = contract("boij,bojk->boik", carries[strip], arriving)
        arriving = torch.cat([writes[strip], passed] if backwards else [passed, writes[strip]], -1)
    return blocks[::-1] if backwards else blocks
