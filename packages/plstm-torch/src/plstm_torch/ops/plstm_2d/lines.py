"""Decay along a line of nodes: the products of transitions between any two of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn.functional import pad

from plstm_torch.ops.plstm_2d.problem import Flips, flip_each


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
    turned = tuple((False, flip[axis]) for flip in flips)
    node = transition.dim() - 3
    transition = flip_each(transition, turned, None, node)
    if transition.shape[-1] == 1:
        decay = line_decay(transition[..., 0, 0])[..., :, None, :, None]
    else:
        decay = _matrix_decay(transition)
    return Line(
        between=flip_each(
            flip_each(decay[..., :-1, :, 1:, :], turned, None, node), turned, None, node + 2
        ),
        enter=flip_each(decay[..., :-1, :, 0, :], turned, None, node),
        leave=flip_each(decay[..., -1, :, 1:, :], turned, None, node + 1),
        total=decay[..., -1, :, 0, :],
    )


def line_decay(transition: Tensor) -> Tensor:
    """L[i, j] = product of transition[k] over j <= k < i, zero for i < j; [*, n] to [*, n + 1, n + 1]."""
    if torch.compiler.is_compiling():
        one = torch.ones_like(transition[..., :1])
        rows = [one]
        for gate in transition.unsqueeze(-1).unbind(-2):
            rows.append(torch.cat([rows[-1] * gate, one], -1))
        return torch.stack([pad(row, (0, len(rows) - row.shape[-1])) for row in rows], -2)
    return _LineDecay.apply(transition)


def _matrix_decay(transition: Tensor) -> Tensor:
    """The same for matrices: [*, n, J, J] to [*, n + 1, J, n + 1, J], later factors to the left."""
    size = transition.shape[-1]
    one = torch.eye(size, dtype=transition.dtype, device=transition.device).expand(*transition.shape[:-3], size, size)
    rows = [one]
    for gate in transition.unbind(-3):
        rows.append(torch.cat([gate @ rows[-1], one], -1))
    return torch.stack([pad(row, (0, len(rows) * size - row.shape[-1])) for row in rows], -3).unflatten(
        -1, (len(rows), size)
    )


class _LineDecay(torch.autograd.Function):
    """Autograd of cumprod divides by its input, which may be zero; these formulas only multiply."""

    generate_vmap_rule = True

    @staticmethod
    def forward(transition: Tensor) -> Tensor:
        n = transition.shape[-1]
        below = torch.ones(n, n + 1, dtype=torch.bool, device=transition.device).tril()
        factors = torch.where(below, transition.unsqueeze(-1), 1.0)
        return pad(factors, (0, 0, 1, 0), value=1.0).cumprod(-2).tril()

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:
        (decay,) = ctx.saved_tensors
        return ((decay[..., :, 1:].mT @ grad) * decay[..., :-1, :]).sum(-1)

    @staticmethod
    def jvp(ctx: FunctionCtx, tangent: Tensor) -> Tensor:
        (decay,) = ctx.saved_tensors
        return decay[..., :, 1:] @ (tangent.unsqueeze(-1) * decay[..., :-1, :])
