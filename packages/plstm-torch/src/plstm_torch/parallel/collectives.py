"""Collectives that autograd knows: of each, the gradient is the other one of the pair, to any order.

The loss that is differentiated is the sum of what all ranks compute, so a number that several ranks read has the sum of
their gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed

# torch 2.13 renamed both
_gather_into = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor
_sum_scatter_into = getattr(distributed, "reduce_scatter_single", None) or distributed.reduce_scatter_tensor


def gather_values(tensor: Tensor, group: distributed.ProcessGroup) -> Tensor:
    """`all_gather` without gradients."""
    gathered = tensor.new_empty(group.size(), *tensor.shape)
    if gathered.numel():
        _gather_into(gathered.view(-1), tensor.contiguous().view(-1), group=group)
    return gathered


def all_gather(tensor: Tensor, group: distributed.ProcessGroup) -> Tensor:
    """Everyone's tensor [...] on every rank [R,...], in the order of the ranks; the same shape everywhere."""
    gathered: Tensor = _AllGather.apply(tensor, group)[0]
    return gathered


def all_sum(tensor: Tensor, group: distributed.ProcessGroup) -> Tensor:
    """The sum of everyone's tensor, on every rank; the same shape everywhere."""
    total: Tensor = _AllSum.apply(tensor, group)[0]
    return total


def _tied(grad: Tensor, anchor: Tensor) -> Tensor:
    """A gradient as a function of a zero that came with the result.

    So a second derivative goes through the collective and its gradient on every rank, also where nothing depends on the
    result: the others wait for this rank.
    """
    return grad + 0.0 * anchor


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: distributed.ProcessGroup) -> tuple[Tensor, Tensor]:
        ctx.group, anchor = group, tensor.new_zeros(())
        ctx.save_for_backward(anchor)
        return gather_values(tensor, group), anchor

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, None]:
        return _SumScatter.apply(_tied(grads[0], *ctx.saved_tensors), ctx.group)[0], None


class _SumScatter(torch.autograd.Function):
    """From one slot for each rank [R,...] everyone's own slot, summed over the ranks."""

    @staticmethod
    def forward(ctx: Any, slots: Tensor, group: distributed.ProcessGroup) -> tuple[Tensor, Tensor]:
        ctx.group, anchor = group, slots.new_zeros(())
        ctx.save_for_backward(anchor)
        own = slots.new_empty(slots.shape[1:])
        if own.numel():
            _sum_scatter_into(own.view(-1), slots.contiguous().view(-1), group=group)
        return own, anchor

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, None]:
        return _AllGather.apply(_tied(grads[0], *ctx.saved_tensors), ctx.group)[0], None


class _AllSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: distributed.ProcessGroup) -> tuple[Tensor, Tensor]:
        ctx.group, anchor = group, tensor.new_zeros(())
        ctx.save_for_backward(anchor)
        total = tensor.clone(memory_format=torch.contiguous_format)
        if total.numel():
            distributed.all_reduce(total, group=group)
        return total, anchor

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, None]:
        return _AllSum.apply(_tied(grads[0], *ctx.saved_tensors), ctx.group)[0], None
