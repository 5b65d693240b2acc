"""Ops with a hand-written backward that still compose with every transform of torch.

A hand-written pass may write into preallocated buffers and keep no intermediate result, which autograd cannot; but
forward mode and derivatives of derivatives need a differentiable formula. `FastForm` holds both. For the compiler the
hand-written pass is one opaque operator: to trace it would unroll every loop. Every pass, the backward ones too, runs
without the caller's autocast: it writes into buffers of its inputs' dtype.

A form that is fast because it multiplies with masks lets one NaN, or one product that overflows, reach results that do
not depend on it: zero times NaN is NaN. It names a careful form, and both passes take that one for the rows of the
batch whose results are not finite. Finite results need no second look, since whatever is not finite stays so in every
product and sum; so one sum over the results is all that ordinary input pays.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from plstm_torch.dtypes import without_autocast
from plstm_torch.ops._exporting import is_exporting

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class CarefulForm:
    """The function of a fast form where nothing is multiplied by what it does not depend on.

    Attributes:
        function: in differentiable operations, row by row of the batch; the last resort, so it may be slow.
        rows: inputs -> rows that are evaluated at once, which bounds the memory.
        shares_rows: inputs -> whether a row holds several things that know nothing of each other, such as packed
            sequences. Then gradients are looked at, too: a cotangent that is not finite must stay with its own.
    """

    function: Callable[..., Tensors]
    rows: Callable[..., int]
    shares_rows: Callable[..., bool] = lambda *inputs: False


@dataclass(frozen=True)
class FastForm:
    """One function of tensors in two forms; every tensor that enters or leaves has the same leading batch axis.

    Attributes:
        name: of the operator that the compiler sees.
        formula: the function in differentiable operations without side effects.
        forward: returns (outputs, saved); saved are batch-first tensors for `gradients`. None of them may share
            memory with another or with an input.
        gradients: (inputs, saved, cotangents of the outputs) -> one gradient for each input.
        allocate: inputs -> empty tensors in the shapes of outputs and saved.
        num_outputs: number of outputs.
        careful: takes over the rows of the batch whose outputs are not finite; None if the form is careful itself.
        operator: what the compiler sees in its place.
    """

    name: str
    formula: Callable[..., Tensors]
    forward: Callable[..., tuple[Tensors, Tensors]]
    gradients: Callable[[Tensors, Tensors, Tensors], Tensors]
    allocate: Callable[..., Tensors]
    num_outputs: int
    careful: CarefulForm | None = None
    operator: Callable[[list[Tensor]], list[Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "operator", _operator(self))

    def __call__(self, *inputs: Tensor) -> Tensors:
        """The outputs."""
        if is_exporting():
            return self.formula(*inputs)
        if torch.compiler.is_compiling():
            results = self.operator(list(inputs))
        else:
            return apply_form(self, *inputs)
        return tuple(results[: self.num_outputs])


def apply_form(form: Any, *inputs: Tensor) -> Tensors:
    """Run a form outside of the compiler.

    Args:
        form: has `formula`, `forward`, `gradients`, `num_outputs` and `careful`, as a `FastForm` does.
        inputs: as its functions take them.

    Returns:
        The outputs.
    """
    return tuple(_Forward.apply(form, *inputs)[: form.num_outputs])


def run_forward(form: Any, inputs: Sequence[Tensor], device: torch.device | None = None) -> tuple[Tensors, Tensors]:
    """Outputs and saved of a form; the last of saved says which rows were left to its careful form, if it has one.

    Args:
        form: see `apply_form`.
        inputs: as its functions take them.
        device: where the last of saved lies; that of the outputs if None. On the CPU it costs the backward pass no wait
            for a GPU.

    Returns:
        Both.
    """
    with without_autocast(inputs[0]):
        outputs, saved = form.forward(*inputs)
        if form.careful is None:
            return outputs, saved
        spoilt = rows_that_are_not_finite(outputs, device)
        for rows in _pieces(form.careful, spoilt, inputs):
            found = form.careful.function(*(tensor[rows] for tensor in inputs))
            for output, right in zip(outputs, found, strict=True):
                output[rows] = _where_not_finite(output[rows], right)
    return outputs, (*saved, spoilt)


def run_gradients(form: Any, inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
    """Gradients of a form, of its careful form in the rows that it was used for."""
    with without_autocast(inputs[0]):
        if form.careful is None:
            return tuple(form.gradients(inputs, saved, cotangents))
        *saved_by_form, spoilt = saved
        gradients = tuple(form.gradients(inputs, tuple(saved_by_form), cotangents))
        if form.careful.shares_rows(*inputs):
            spoilt = spoilt | rows_that_are_not_finite(gradients, spoilt.device)
        for rows in _pieces(form.careful, spoilt, inputs):
            _, pull = vjp(form.careful.function, *(tensor[rows] for tensor in inputs))
            for gradient, right in zip(gradients, pull(tuple(tensor[rows] for tensor in cotangents)), strict=True):
                gradient[rows] = _where_not_finite(gradient[rows], right)
    return gradients


def kinds(outputs: Sequence[Tensor]) -> list[tuple[torch.Size, torch.dtype]]:
    """What `with_zeros` has to know of the outputs, so that none of them is kept."""
    return [(output.shape, output.dtype) for output in outputs]


def with_zeros(
    grads: Sequence[Tensor | None], kinds: Sequence[tuple[torch.Size, torch.dtype]], near: Tensor
) -> list[Tensor]:
    """The cotangents of the outputs: zeros for those that nobody asked for, in the dtype of the output.

    Args:
        grads: those of the outputs, None where there is none; further ones are of what was saved.
        kinds: shapes and dtypes of the outputs.
        near: a tensor on their device.

    Returns:
        One for each output.
    """
    return [
        near.new_zeros(shape, dtype=dtype) if grad is None else grad
        for (shape, dtype), grad in zip(kinds, grads, strict=False)
    ]


def _where_not_finite(fast: Tensor, careful: Tensor) -> Tensor:
    """What is finite is right as it is, and stays the same number whatever its neighbours hold."""
    return torch.where(fast.isfinite(), fast, careful)


def rows_that_are_not_finite(outputs: Tensors, device: torch.device | None = None) -> Tensor:
    """Whether a row of any output holds something else than finite numbers, [B], on a device or that of the outputs."""
    device = device or outputs[0].device
    if has_numbers(outputs[0]) and not math.isfinite(_total(outputs)):
        finite = [output.isfinite().flatten(1).all(1) for output in outputs]
        return ~torch.stack(finite).all(0).to(device)
    return torch.zeros(outputs[0].shape[0], dtype=torch.bool, device=device)


def _total(outputs: Tensors) -> float:
    """The sum of everything: on a GPU in one look at the numbers, which waits for it."""
    if not outputs[0].is_cuda:
        return sum(float(output.sum()) for output in outputs)
    wide = (torch.float64 if output.dtype == torch.float64 else torch.float32 for output in outputs)
    return float(sum(output.sum(dtype=dtype) for output, dtype in zip(outputs, wide, strict=True)))


def has_numbers(tensor: Tensor) -> bool:
    """Whether the host may look at the numbers: not where there are none, nor while a CUDA graph is captured."""
    if tensor.device.type == "meta" or isinstance(tensor, FakeTensor):
        return False
    return not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def _pieces(careful: CarefulForm, spoilt: Tensor, inputs: Sequence[Tensor]) -> Iterator[Tensor]:
    """Indices of the rows that are left to the careful form, as many at a time as it takes at once."""
    if has_numbers(spoilt) and bool(spoilt.any()):
        yield from spoilt.nonzero().squeeze(1).split(careful.rows(*inputs))


def _operator(form: FastForm) -> Callable[[list[Tensor]], list[Tensor]]:
    """Both passes as operators with known shapes and a known backward."""
    library = torch.library

    @library.custom_op(f"plstm_torch::{form.name}", mutates_args=(), schema="(Tensor[] inputs) -> Tensor[]")
    def forward(inputs: list[Tensor]) -> list[Tensor]:
        outputs, saved = run_forward(form, inputs)
        return [*outputs, *saved]

    signature = "(Tensor[] inputs, Tensor[] saved, Tensor[] cotangents) -> Tensor[]"

    @library.custom_op(f"plstm_torch::{form.name}_gradients", mutates_args=(), schema=signature)
    def gradients(inputs: list[Tensor], saved: list[Tensor], cotangents: list[Tensor]) -> list[Tensor]:
        return list(run_gradients(form, tuple(inputs), tuple(saved), tuple(cotangents)))

    @forward.register_fake
    def _(inputs: list[Tensor]) -> list[Tensor]:
        spoilt = [] if form.careful is None else [inputs[0].new_empty(inputs[0].shape[0], dtype=torch.bool)]
        return [*form.allocate(*inputs), *spoilt]

    @gradients.register_fake
    def _(inputs: list[Tensor], saved: list[Tensor], cotangents: list[Tensor]) -> list[Tensor]:
        return [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in inputs]

    @forward.register_vmap
    def _(info: Any, in_dims: tuple[list[Any]], inputs: list[Tensor]) -> tuple[Any, Any]:
        results = unfold(info.batch_size, forward(fold(info.batch_size, in_dims[0], inputs)))
        return list(results), [0] * len(results)

    def setup_context(ctx: Any, inputs: tuple[list[Tensor]], output: list[Tensor]) -> None:
        ctx.num_inputs = len(inputs[0])
        ctx.save_for_backward(*inputs[0], *output)

    def backward(ctx: Any, grads: list[Tensor | None]) -> list[Tensor]:
        tensors = list(ctx.saved_tensors)
        inputs, outputs = tensors[: ctx.num_inputs], tensors[ctx.num_inputs :]
        cotangents = [
            torch.zeros_like(output) if grad is None else grad
            for output, grad in zip(outputs[: form.num_outputs], grads, strict=False)
        ]
        return gradients(inputs, outputs[form.num_outputs :], cotangents)

    forward.register_autograd(backward, setup_context=setup_context)
    return forward


class _Forward(torch.autograd.Function):
    """The hand-written forward pass; returns the outputs and what `gradients` wants saved."""

    @staticmethod
    def forward(form: FastForm, *inputs: Tensor) -> Tensors:
        outputs, saved = run_forward(form, inputs, torch.device("cpu"))
        return (*outputs, *saved)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
        form, *tensors = inputs
        outputs, saved = output[: form.num_outputs], output[form.num_outputs :]
        ctx.form, ctx.num_inputs, ctx.num_saved = form, len(tensors), len(saved)
        ctx.kinds = kinds(outputs)
        ctx.mark_non_differentiable(*saved)
        ctx.set_materialize_grads(False)  # would fill zeros as large as everything saved
        ctx.save_for_backward(*tensors, *saved)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        tensors = ctx.saved_tensors
        cotangents = with_zeros(grads, ctx.kinds, tensors[0])
        return (None, *_Gradients.apply(ctx.form, ctx.num_inputs, ctx.num_saved, *tensors, *cotangents))

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Any, ...]:
        primals = ctx.saved_tensors[: ctx.num_inputs]
        with without_autocast(primals[0]):
            results = _push(ctx.form.formula, primals, tangents[1:])
        return (*results, *[None] * ctx.num_saved)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], form: FastForm, *inputs: Tensor) -> tuple[Any, Any]:
        folded = fold(info.batch_size, in_dims[1:], inputs)
        results = unfold(info.batch_size, _Forward.apply(form, *folded))
        return results, tuple([0] * len(results))


class _Gradients(torch.autograd.Function):
    """The hand-written backward pass as a function in its own right, so that it can be transformed again."""

    @staticmethod
    def forward(form: FastForm, num_inputs: int, num_saved: int, *tensors: Tensor) -> tuple[Any, ...]:
        inputs, saved = tensors[:num_inputs], tensors[num_inputs : num_inputs + num_saved]
        return run_gradients(form, inputs, saved, tensors[num_inputs + num_saved :])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        form, num_inputs, num_saved, *tensors = inputs
        ctx.form, ctx.num_inputs, ctx.num_saved = form, num_inputs, num_saved
        del tensors[num_inputs : num_inputs + num_saved]  # they follow from the inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def _formula(ctx: Any) -> Callable[..., Tensors]:
        def gradients(*tensors: Tensor) -> Tensors:
            _, pull = vjp(ctx.form.formula, *tensors[: ctx.num_inputs])
            return pull(tuple(tensors[ctx.num_inputs :]))

        return gradients

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        with without_autocast(ctx.saved_tensors[0]):
            _, pull = vjp(_Gradients._formula(ctx), *ctx.saved_tensors)
            results = pull(tuple(grads))
        of_inputs, of_cotangents = results[: ctx.num_inputs], results[ctx.num_inputs :]
        return (None, None, None, *of_inputs, *[None] * ctx.num_saved, *of_cotangents)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        given = list(tangents[3:])
        del given[ctx.num_inputs : ctx.num_inputs + ctx.num_saved]
        with without_autocast(ctx.saved_tensors[0]):
            return _push(_Gradients._formula(ctx), ctx.saved_tensors, given)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], form: FastForm, num_inputs: int, num_saved: int, *tensors: Tensor
    ) -> tuple[Any, Any]:
        folded = fold(info.batch_size, in_dims[3:], tensors)
        results = unfold(info.batch_size, _Gradients.apply(form, num_inputs, num_saved, *folded))
        return results, tuple([0] * len(results))


# torch asks for these signatures at every call, which takes longer than a small form itself
for _function in (_Forward.forward, _Gradients.forward):
    setattr(_function, "__signature__", inspect.signature(_function))  # noqa: B010


def formula_gradients(formula: Callable[..., Tensors]) -> Callable[[Tensors, Tensors, Tensors], Tensors]:
    """The gradients of a form that keeps nothing: its formula is evaluated again and differentiated."""

    def gradients(inputs: Tensors, saved: Tensors, cotangents: Tensors) -> Tensors:
        _, pull = vjp(formula, *inputs)
        return tuple(gradient.clone(memory_format=torch.contiguous_format) for gradient in pull(cotangents))

    return gradients


def vjp(function: Callable[..., Any], *primals: Tensor) -> tuple[Any, Callable[..., Any]]:
    """What a function returns, and its pullback, from cotangents to gradients."""
    outputs, pull = torch.func.vjp(function, *primals)[:2]  # the signature knows a third, optional result
    return outputs, pull


def _push(function: Callable[..., Tensors], primals: Sequence[Tensor], tangents: Sequence[Any]) -> Tensors:
    """Derivative along `tangents` by reverse mode alone, because torch does not nest forward mode.

    The pullback is linear in the cotangents; its own pullback is the pushforward.
    """
    outputs, pull = vjp(function, *primals)
    _, push = vjp(lambda *cotangents: pull(cotangents), *map(torch.zeros_like, outputs))
    known = (
        torch.zeros_like(primal) if tangent is None else tangent
        for primal, tangent in zip(primals, tangents, strict=True)
    )
    return push(tuple(known))


def fold(size: int, in_dims: Sequence[int | None], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Merge the mapped axis into the batch axis, which every tensor has."""
    moved = (
        tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(tensors, in_dims, strict=True)
    )
    return [tensor.flatten(0, 1) for tensor in moved]


def unfold(size: int, tensors: Sequence[Tensor]) -> Tensors:
    """Make an axis of its own in front of the batch axis again."""
    return tuple(tensor.unflatten(0, (size, tensor.shape[0] // size)) for tensor in tensors)
