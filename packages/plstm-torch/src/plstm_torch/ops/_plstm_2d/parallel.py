"""The gating matrix of a whole grid, all orientations summed: what the quadratic form masks its scores with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from plstm_torch.ops._contract import contract
from plstm_torch.ops._exporting import is_exporting
from plstm_torch.ops._plstm_2d.attention import masked_attention
from plstm_torch.ops._plstm_2d.columns import column_systems, diagonal
from plstm_torch.ops._plstm_2d.exported import directed_gating
from plstm_torch.ops._plstm_2d.problem import Flips, Gates, Problem, exchange_axes, map_gates
from plstm_torch.ops._plstm_2d.separable import separable_gating
from plstm_torch.ops._plstm_2d.strips import System, follow


def parallel(problem: Problem) -> Tensor:
    """Output [B, X, Y, DV, JO] of a grid that no border state enters."""
    gates, flips = problem.gates, problem.flips
    if gates.is_scalar and gates.mode == "R":
        return parallel(exchange_axes(problem)).transpose(1, 2)
    if gates.is_scalar and gates.mode == "L":
        gating = separable_gating(gates, flips, problem.direct[..., 0, 0, 0, 0])
        rows = [gating[:, :, None, None, :, None, None]]
    elif is_exporting() and gates.is_scalar and gates.mode == "P":
        gating = directed_gating(gates, flips, problem.direct[..., 0, 0, 0, 0])
        rows = [gating[:, :, None, None, :, None, None]]
    else:
        rows = strip_gating(gates, flips, problem.direct)
    q, k, v = (tensor.flatten(1, 2) for tensor in (problem.query, problem.key, problem.value))
    queries = [q] if len(rows) == 1 else q.split([row.shape[1] for row in rows], 1)
    outputs = [masked_attention(query, k, v, row) for query, row in zip(queries, rows, strict=True)]
    return torch.cat(outputs, 1).unflatten(1, problem.query.shape[1:3])


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
