"""Decay along a line of nodes: the products of transitions between any two of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from plstm_torch.ops._contract import contract
from plstm_torch.ops._fast_form import FastForm, Tensors
from plstm_torch.ops._plstm_1d.decay import line_decay_and_ends
from plstm_torch.ops._plstm_2d.problem import Flips, flip_each


@dataclass(frozen=True)
class Line:
    """A line of n nodes as a linear map, indices in the order of the image whatever the direction of the walk."""

    between: Tensor  # [*, n, J, n, J]: from what leaves node j to what arrives at node i, the nodes between them
    enter: Tensor  # [*, n, J, J]: from the border to what arrives at node i
    leave: Tensor  # [*, J, n, J]: from what leaves node j to the border at the far end
    total: Tensor  # [*, J, J]: from border to border


def line(transition: Tensor, flips: Flips, axis: int) -> Line:
    """Decays along the last node axis.

    Args:
        transition: [B, O, *, n, J, J].
        flips: walking directions of the orientations.
        axis: 0 if the line runs along X, 1 along Y.

    Returns:
        The maps, each [B, O, *, ...].
    """
    backwards = [flip[axis] for flip in flips]
    if transition.shape[-1] == 1:
        return _scalar_line(transition[..., 0, 0], backwards)
    node = transition.dim() - 3
    turned = tuple((flip, False) for flip in backwards)
    decay = _matrix_decay(flip_each(transition, turned, node, None))
    between = flip_each(decay[..., :-1, :, 1:, :], turned, node, None)
    return Line(
        between=flip_each(between, turned, node + 2, None),
        enter=flip_each(decay[..., :-1, :, 0, :], turned, node, None),
        leave=flip_each(decay[..., -1, :, 1:, :], turned, node + 1, None),
        total=decay[..., -1, :, 0, :],
    )


def _scalar_line(transition: Tensor, backwards: list[bool]) -> Line:
    """Scalars commute, so the way back is the transpose of the way forth."""
    lead, n = transition.shape[:-1], transition.shape[-1]
    results = _LINE(transition.reshape(-1, n))
    between, enter, leave, total = (result.view(*lead, *result.shape[1:]) for result in results)
    if any(backwards):
        ways = list(zip(backwards, between.unbind(1), enter.unbind(1), leave.unbind(1), strict=True))
        between = torch.stack([part.mT if back else part for back, part, _, _ in ways], 1)
        enter, leave = (
            torch.stack([last if back else first for back, _, first, last in ways], 1),
            torch.stack([first if back else last for back, _, first, last in ways], 1),
        )
    return Line(
        between[..., :, None, :, None], enter[..., None, None], leave[..., None, :, None], total[..., None, None]
    )


def _matrix_decay(transition: Tensor) -> Tensor:
    """L[i, j] = product of transition[k] over j <= k < i, later factors to the left, zero for i < j.

    Args:
        transition: [*, n, J, J].

    Returns:
        [*, n + 1, J, n + 1, J].
    """
    size = transition.shape[-1]
    one = torch.eye(size, dtype=transition.dtype, device=transition.device).expand(*transition.shape[:-3], size, size)
    rows = [one]
    for gate in transition.unbind(-3):
        rows.append(torch.cat([contract("...ab,...bc->...ac", gate, rows[-1]), one], -1))
    decay = torch.stack([pad(row, (0, len(rows) * size - row.shape[-1])) for row in rows], -3)
    return decay.unflatten(-1, (len(rows), size))


def _forward(transition: Tensor) -> tuple[Tensors, Tensors]:
    """Row by row into one buffer, which holds the ends of the line as its first column and last row."""
    count, n = transition.shape
    decay = transition.new_zeros(count, n + 1, n + 1)
    decay.diagonal(dim1=1, dim2=2).fill_(1.0)
    rows, gates = decay.unbind(1), transition.unsqueeze(-1).unbind(1)
    for i in range(n):
        torch.mul(rows[i][:, : i + 1], gates[i], out=rows[i + 1][:, : i + 1])
    between, ends = decay[:, :-1, 1:].contiguous(), (decay[:, :-1, 0], decay[:, -1, 1:], decay[:, -1, 0])
    return (between, *(end.clone(memory_format=torch.contiguous_format) for end in ends)), (decay,)


def _gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    """The derivative of a product by one factor is the product of what is on either side of it."""
    (decay,) = saved
    grad = torch.empty_like(decay)
    grad[:, :-1, 1:], grad[:, :-1, 0], grad[:, -1, 1:], grad[:, -1, 0] = cotangents
    return ((torch.bmm(decay[:, :, 1:].mT, grad) * decay[:, :-1]).sum(-1),)


def _allocate(transition: Tensor) -> Tensors:
    count, n = transition.shape
    shapes = (count, n, n), (count, n), (count, n), (count,), (count, n + 1, n + 1)
    return tuple(transition.new_empty(shape) for shape in shapes)


_LINE = FastForm("grid_line", lambda transition: line_decay_and_ends(transition), _forward, _gradients, _allocate, 4)
