"""Products of two tensors that are computed in their dtype forward and backward, whatever autocast the caller is in.

Autograd runs a backward pass under the autocast that is active where it is called, so a plain product loses precision
there even if autocast was switched off for its forward pass.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from plstm_torch.dtypes import without_autocast
from plstm_torch.ops._exporting import is_exporting


def contract(equation: str, left: Tensor, right: Tensor) -> Tensor:
    """`torch.einsum` of two tensors.

    Args:
        equation: as in einsum, with an arrow; every index of an operand stands in the other one or in the result.
        left: first operand.
        right: second operand, same dtype.

    Returns:
        The product.
    """
    if is_exporting():
        return torch.einsum(equation, left, right)
    if torch.compiler.is_compiling():
        return _contract_op(equation, left, right)
    if not torch.is_grad_enabled():
        with without_autocast(left):
            return torch.einsum(equation, left, right)
    return _Contraction.apply(equation, left, right)


def _equations_of_gradients(equation: str) -> tuple[str, str]:
    """How the gradients follow: of the left operand from (grad, right), of the right one from (left, grad)."""
    operands, result = equation.split("->")
    left, right = operands.split(",")
    return f"{result},{right}->{left}", f"{left},{result}->{right}"


class _Contraction(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(equation: str, left: Tensor, right: Tensor) -> Tensor:
        with without_autocast(left):
            return torch.einsum(equation, left, right)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.equation, *operands = inputs
        ctx.save_for_backward(*operands)
        ctx.save_for_forward(*operands)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        left, right = ctx.saved_tensors
        of_left, of_right = _equations_of_gradients(ctx.equation)
        d_left = contract(of_left, grads[0], right) if ctx.needs_input_grad[1] else None
        d_right = contract(of_right, left, grads[0]) if ctx.needs_input_grad[2] else None
        return None, d_left, d_right

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        left, right = ctx.saved_tensors
        parts = [
            contract(ctx.equation, *pair)
            for pair in ((tangents[1], right), (left, tangents[2]))
            if pair[0] is not None and pair[1] is not None
        ]
        return sum(parts[1:], parts[0])


# torch asks for the signature at every call, which takes longer than a small product itself
setattr(_Contraction.forward, "__signature__", inspect.signature(_Contraction.forward))  # noqa: B010


# the same for the compiler, which does not trace the class above and loses its context managers in backward passes
@torch.library.custom_op("plstm_torch::contract", mutates_args=())
def _contract_op(equation: str, left: Tensor, right: Tensor) -> Tensor:
    with without_autocast(left):
        return torch.einsum(equation, left, right).contiguous()


@_contract_op.register_fake
def _(equation: str, left: Tensor, right: Tensor) -> Tensor:
    result = torch.einsum(equation, left, right)
    return left.new_empty(result.shape)


def _setup_context(ctx: Any, inputs: tuple[str, Tensor, Tensor], output: Tensor) -> None:
    ctx.equation, *operands = inputs
    ctx.save_for_backward(*operands)


def _backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor]:
    left, right = ctx.saved_tensors
    of_left, of_right = _equations_of_gradients(ctx.equation)
    return None, _contract_op(of_left, grad, right), _contract_op(of_right, left, grad)


_contract_op.register_autograd(_backward, setup_context=_setup_context)


@_contract_op.register_vmap
def _(info: Any, in_dims: tuple[Any, ...], equation: str, left: Tensor, right: Tensor) -> tuple[Tensor, int]:
    operands, result = equation.split("->")
    axes = ["" if dim is None else "Z" for dim in in_dims[1:]]
    moved = (
        tensor if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip((left, right), in_dims[1:], strict=True)
    )
    terms = ",".join(axis + term for axis, term in zip(axes, operands.split(","), strict=True))
    return _contract_op(f"{terms}->Z{result}", *moved), 0
