"""The gating matrix of a whole grid, all orientations summed: what the quadratic form masks its scores with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from plstm_torch.ops.plstm_2d.attention import masked_attention, with_direct
from plstm_torch.ops.plstm_2d.lines import line
from plstm_torch.ops.plstm_2d.problem import Flips, Gates, Problem, flip_each, map_gates
from plstm_torch.ops.plstm_2d.systems import chain, column_systems

STRIP = 5  # columns; measured


def quadratic(problem: Problem) -> Tensor:
    """Output [B, X, Y, DV, JO] of a grid that no border state enters."""
    gates, flips = problem.gates, problem.flips
    if gates.is_scalar and gates.mode in ("L", "R"):
        gating = separable_gating(gates, flips, problem.direct[..., 0, 0, 0, 0])[:, :, None, None, :, None, None]
    else:
        gating = with_direct(strip_gating(gates, flips), problem.direct.flatten(1, 2))
    q, k, v = (tensor.flatten(1, 2) for tensor in (problem.query, problem.key, problem.value))
    return masked_attention(q, k, v, gating).unflatten(1, problem.query.shape[1:3])


def separable_gating(gates: Gates, flips: Flips, direct: Tensor) -> Tensor:
    """Closed form for scalar gates in D-mode, [B, N, N].

    A path turns at most once, so for given source column u and target row y the matrix has rank one in (x, v) per
    orientation: one batched product, whose inner size also holds the paths that stay in the column and `direct`.
    """
    if gates.mode == "R":  # chirality L with the axes exchanged
        gates = map_gates(gates, lambda gate: gate.transpose(2, 3))
        gates = Gates(
            source_r=gates.source_d,
            source_d=gates.source_r,
            transition_rl=gates.transition_du,
            transition_du=gates.transition_rl,
            transition_dl=None,
            transition_ru=gates.transition_dl,
            mark_l=gates.mark_u,
            mark_u=gates.mark_l,
        )
        turned = separable_gating(gates, tuple((y, x) for x, y in flips), direct.transpose(1, 2))
        x, y = direct.shape[1:]
        return turned.view(-1, y, x, y, x).permute(0, 2, 1, 4, 3).flatten(3, 4).flatten(1, 2)
    batch, _, x, y = gates.source_r.shape[:4]
    across = line(gates.transition_rl.transpose(2, 3), flips, 0).between[..., 0, :, 0]  # [B, O, y, x, u]
    down = line(gates.transition_du, flips, 1).between[..., 0, :, 0]  # [B, O, u, y, v]
    arriving = down * gates.source_d[..., 0, 0, 0].unsqueeze(3)
    turning = torch.diag_embed(gates.source_r[..., 0, 0, 0])
    if gates.transition_ru is not None:
        turning = turning + gates.transition_ru[..., 0] * arriving
    eye_x, eye_y = (torch.eye(size, dtype=direct.dtype, device=direct.device) for size in (x, y))
    reading = (gates.mark_l[..., 0, 0, 0].transpose(2, 3).unsqueeze(-1) * across).permute(0, 4, 2, 3, 1)
    staying = torch.cat([gates.mark_u[..., 0, 0, 0], direct.unsqueeze(1)], 1).permute(0, 2, 3, 1)  # [B, u, y, o]
    to_target = torch.cat([reading, staying.unsqueeze(3) * eye_x.view(x, 1, x, 1)], -1)
    own = eye_y.view(1, 1, 1, y, y).expand(batch, 1, x, y, y)
    from_source = torch.cat([turning, arriving, own], 1).permute(0, 2, 3, 1, 4)
    gating = to_target.flatten(0, 2) @ from_source.flatten(0, 2)
    return gating.view(batch, x, y, x, y).permute(0, 3, 2, 1, 4).flatten(3, 4).flatten(1, 2)


def strip_gating(gates: Gates, flips: Flips) -> Tensor:
    """General form [B, N, JO, JQ, N, JK, JV]: columns make strips, and matrices of low rank connect the strips."""
    x, y, jt, jk, jv = gates.source_r.shape[2:]
    jo, jq = gates.mark_l.shape[4:6]
    count = -(-x // STRIP)
    width = -(-x // count)
    missing = count * width - x
    turned = tuple((flip_x, False) for flip_x, _ in flips)

    def in_strips(gate: Tensor) -> Tensor:
        filled = pad(gate, (0, 0) * (gate.dim() - 3) + (0, missing)) if missing else gate
        return flip_each(filled.unflatten(2, (count, width)), turned, 3, None)

    system = chain(column_systems(map_gates(gates, in_strips), flips, False), y * jt, True)
    state, out, into = y * jt, y * jo * jq, y * jk * jv
    rows, leaving = system.split([width * out, state], 3)

    def to_image(response: Tensor, axis: int) -> Tensor:
        return flip_each(response.unflatten(axis, (width, -1)), turned, axis, None).flatten(axis, axis + 1)

    rows = to_image(rows, 3)
    read, nodes = rows[..., :state], to_image(rows[..., state:], 4).sum(1)
    carry, write = leaving[..., :state], to_image(leaving[..., state:], 4)
    parts = [[block] for block in nodes.unbind(1)]
    columns = width * into
    for backwards in (False, True):
        chosen = [o for o, (flip_x, _) in enumerate(flips) if flip_x is backwards]
        if chosen:
            _connect(parts, read[:, chosen], carry[:, chosen], write[:, chosen], backwards)
        else:
            unseen = [(0, (count - 1 - s) * columns) if backwards else (s * columns, 0) for s in range(count)]
            parts = [[pad(torch.cat(blocks, 2), zeros)] for blocks, zeros in zip(parts, unseen, strict=True)]
    gating = torch.cat([torch.cat(blocks, 2) for blocks in parts], 1)
    if missing:
        gating = gating[:, : x * out, : x * into]
    return gating.unflatten(2, (x * y, jk, jv)).unflatten(1, (x * y, jo, jq))


def _connect(parts: list[list[Tensor]], read: Tensor, carry: Tensor, write: Tensor, backwards: bool) -> None:
    """Adds to every strip's row of blocks what reaches it from the strips before it on the walk."""
    count = read.shape[2]
    order = range(count - 1, -1, -1) if backwards else range(count)
    reads = read.transpose(1, 2).transpose(2, 3).flatten(3).unbind(1)  # the orientations share one inner dimension
    carries, writes = carry.unbind(2), write.unbind(2)
    arriving: Tensor | None = None
    for strip in order:
        blocks = [writes[strip]]
        if arriving is not None:
            block = reads[strip] @ arriving.flatten(1, 2)
            parts[strip] = [*parts[strip], block] if backwards else [block, *parts[strip]]
            passed = carries[strip] @ arriving
            blocks = [writes[strip], passed] if backwards else [passed, writes[strip]]
        arriving = torch.cat(blocks, -1)
