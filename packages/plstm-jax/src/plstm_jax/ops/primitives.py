"""A function with passes in kernels, under every transform of JAX.

Three primitives stand for the function, its derivative along a direction, and its gradients. Kernels compute the first
and the last where a program is lowered for CPUs. Everything else is derived from a formula in operations of JAX: what
is lowered for other platforms or exported, derivatives along directions, and derivatives of derivatives. The derivative
of the first is the second, whose transpose is the third, whose transpose is the second.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from plstm_jax.ops.kernels import shaped

Arrays = Sequence[Array]
Transposed = Sequence[Array | None]  # nothing for what is not linear


class Passes(ABC):
    """A function of arrays whose first axis is a batch, all of one dtype. Equal ones are the same function.

    Behind them may stand indices: arrays of whole numbers, the same for all of the batch, that have no gradients.
    """

    @property
    def indices(self) -> int:
        """How many of the inputs are indices."""
        return 0

    @property
    @abstractmethod
    def num_results(self) -> int:
        """How many results there are."""

    @abstractmethod
    def shapes(self, *inputs: tuple[int, ...]) -> Sequence[tuple[int, ...]]:
        """Shapes of the results from those of the inputs."""

    @abstractmethod
    def formula(self, *inputs: Array) -> tuple[Array, ...]:
        """The results in operations of JAX."""

    @abstractmethod
    def forward(self, *inputs: Array) -> Arrays:
        """The results by kernels."""

    @abstractmethod
    def gradients(self, inputs: Arrays, cotangents: Arrays) -> Arrays:
        """The gradients of all inputs but the indices by kernels."""


def run_passes(passes: Passes, inputs: Arrays) -> Arrays:
    """The results of a function with passes in kernels; differentiable in all modes and to any order."""
    return _forward.bind(*_varying_alike(inputs), passes=passes)


def _varying_alike(inputs: Arrays) -> Arrays:
    """What varies over the devices of a `shard_map` for one of the inputs does so for all."""
    axes = [_varying_axes(array) for array in inputs]
    every = frozenset().union(*axes)
    return [_cast(array, tuple(sorted(every - own))) for array, own in zip(inputs, axes, strict=True)]


def _varying_axes(array: Array) -> frozenset[Any]:
    aval = jax.typeof(array)
    found: Any = getattr(aval, "vma", None)
    return frozenset(getattr(getattr(aval, "mat", None), "varying", ()) if found is None else found)


def _cast(array: Array, axes: tuple[Any, ...]) -> Array:
    if not axes:
        return array
    if hasattr(lax, "pcast"):
        return lax.pcast(array, axes, to="varying")
    return lax.pvary(array, axes)  # type: ignore[attr-defined]  # JAX up to 0.8.1


def _tangents_formula(*arrays: Array, passes: Passes, moved: tuple[bool, ...]) -> Arrays:
    """The derivative of the results along a direction: the inputs, and tangents of those that are moved."""
    inputs, tangents = arrays[: len(moved)], arrays[len(moved) :]
    return _directional(passes.formula, inputs, tangents, moved)


def _directional(function: Callable[..., Any], inputs: Arrays, tangents: Arrays, moved: Sequence[bool]) -> Any:
    def of_moved(*some: Array) -> Any:
        remaining = iter(some)
        return function(*(next(remaining) if is_moved else x for x, is_moved in zip(inputs, moved, strict=True)))

    some = [array for array, is_moved in zip(inputs, moved, strict=True) if is_moved]
    return jax.jvp(of_moved, some, list(tangents))[1]


def _gradients_formula(*arrays: Array, passes: Passes) -> Arrays:
    inputs, cotangents = _split(arrays, passes)
    number = len(inputs) - passes.indices
    _, pull_back = jax.vjp(lambda *given: passes.formula(*given, *inputs[number:]), *inputs[:number])
    return pull_back(tuple(cotangents))


def _split(arrays: Sequence[Any], passes: Passes) -> tuple[Sequence[Any], Sequence[Any]]:
    """Inputs and cotangents of the results."""
    number = len(arrays) - passes.num_results
    return arrays[:number], arrays[number:]


def _primitive(name: str, formula: Callable[..., Arrays], kernels: Callable[..., Arrays] | None) -> Primitive:
    primitive = Primitive(f"plstm_{name}")
    primitive.multiple_results = True
    compiled = jax.jit(primitive.bind, static_argnames=("passes", "moved") if kernels is None else ("passes",))

    def alone(*arrays: Array, **parameters: Any) -> Arrays:
        with jax.disable_jit(disable=False):  # a program of its own is the only way to a kernel
            return compiled(*arrays, **parameters)

    primitive.def_impl(alone)

    def on_cpu(context: mlir.LoweringRuleContext, *operands: Any, **parameters: Any) -> Any:
        exported = context.module_context.lowering_parameters.for_export
        function = formula if kernels is None or exported else kernels
        return mlir.lower_fun(partial(function, **parameters), multiple_results=True)(context, *operands)

    mlir.register_lowering(primitive, mlir.lower_fun(formula, multiple_results=True))
    mlir.register_lowering(primitive, on_cpu, platform="cpu")

    def batched(arrays: Arrays, axes: Sequence[int | None], **parameters: Any) -> tuple[Arrays, list[int]]:
        size = next(array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None)
        whole = [_is_index(array) for array in arrays]
        if any(is_index and axis is not None for is_index, axis in zip(whole, axes, strict=True)):
            return _one_by_one(partial(primitive.bind, **parameters), arrays, axes)
        given = (
            array if is_index else _merged(size, array, axis)
            for array, axis, is_index in zip(arrays, axes, whole, strict=True)
        )
        results = primitive.bind(*given, **parameters)
        batch = _batch(arrays[0], axes[0])
        return [array.reshape(size, batch, *array.shape[1:]) for array in results], [0] * len(results)

    batching.primitive_batchers[primitive] = batched
    return primitive


def _is_index(array: Array) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.integer))


def _batch(array: Array, axis: int | None) -> int:
    """The length of the batch but for the mapped axis, either of which may be 0."""
    return next(size for place, size in enumerate(array.shape) if place != axis)


def _one_by_one(
    function: Callable[..., Arrays], arrays: Arrays, axes: Sequence[int | None]
) -> tuple[Arrays, list[int]]:
    """Calls with indices of their own know nothing of each other."""
    mapped = [jnp.moveaxis(array, axis, 0) for array, axis in zip(arrays, axes, strict=True) if axis is not None]

    def one(some: Arrays) -> Arrays:
        remaining = iter(some)
        return function(*(array if axis is None else next(remaining) for array, axis in zip(arrays, axes, strict=True)))

    results = lax.map(one, mapped)
    return results, [0] * len(results)


def _merged(size: int, array: Array, axis: int | None) -> Array:
    """An array whose mapped axis has become part of its batch."""
    if axis is None:
        array = lax.broadcast(array, (size,))
    else:
        array = jnp.moveaxis(array, axis, 0)
    return array.reshape(size * array.shape[1], *array.shape[2:])


_forward = _primitive(
    "forward", lambda *inputs, passes: passes.formula(*inputs), lambda *inputs, passes: passes.forward(*inputs)
)
_tangents = _primitive("tangents", _tangents_formula, None)
_gradients = _primitive(
    "gradients", _gradients_formula, lambda *arrays, passes: passes.gradients(*_split(arrays, passes))
)


def _forward_shapes(*inputs: Any, passes: Passes) -> list[Any]:
    return shaped(inputs, passes.shapes(*(aval.shape for aval in inputs)))


def _tangents_shapes(*arrays: Any, passes: Passes, moved: tuple[bool, ...]) -> list[Any]:
    return _forward_shapes(*arrays[: len(moved)], passes=passes)


def _gradients_shapes(*arrays: Any, passes: Passes) -> list[Any]:
    inputs, _ = _split(arrays, passes)
    return list(inputs[: len(inputs) - passes.indices])


def _moved(tangents: Sequence[Any]) -> tuple[tuple[bool, ...], list[Array]]:
    moved = tuple(type(tangent) is not ad.Zero for tangent in tangents)
    return moved, [tangent for tangent, is_moved in zip(tangents, moved, strict=True) if is_moved]


def _forward_tangent(inputs: Arrays, tangents: Sequence[Any], *, passes: Passes) -> tuple[Arrays, Arrays]:
    moved, given = _moved(tangents)
    return _forward.bind(*inputs, passes=passes), _tangents.bind(*inputs, *given, passes=passes, moved=moved)


def _tangents_tangent(
    arrays: Arrays, tangents: Sequence[Any], *, passes: Passes, moved: tuple[bool, ...]
) -> tuple[Arrays, Arrays]:
    again, given = _moved(tangents)
    formula = partial(_tangents_formula, passes=passes, moved=moved)
    return _tangents.bind(*arrays, passes=passes, moved=moved), _directional(formula, arrays, given, again)


def _gradients_tangent(arrays: Arrays, tangents: Sequence[Any], *, passes: Passes) -> tuple[Arrays, Arrays]:
    moved, given = _moved(tangents)
    formula = partial(_gradients_formula, passes=passes)
    return _gradients.bind(*arrays, passes=passes), _directional(formula, arrays, given, moved)


def _tangents_transpose(cotangents: Sequence[Any], *arrays: Any, passes: Passes, moved: tuple[bool, ...]) -> Transposed:
    inputs, tangents = arrays[: len(moved)], arrays[len(moved) :]
    found = _gradients.bind(*inputs, *map(ad.instantiate_zeros, cotangents), passes=passes)
    of_moved = (gradient for gradient, is_moved in zip(found, moved, strict=False) if is_moved)  # indices never are
    pairs = zip(of_moved, tangents, strict=True)
    return [None] * len(moved) + [gradient if ad.is_undefined_primal(tangent) else None for gradient, tangent in pairs]


def _gradients_transpose(directions: Sequence[Any], *arrays: Any, passes: Passes) -> Transposed:
    inputs, cotangents = _split(arrays, passes)
    moved, given = _moved(directions)
    moved += (False,) * passes.indices
    found = _tangents.bind(*inputs, *given, passes=passes, moved=moved)
    pairs = zip(found, cotangents, strict=True)
    return [None] * len(inputs) + [result if ad.is_undefined_primal(one) else None for result, one in pairs]


_forward.def_abstract_eval(_forward_shapes)
_tangents.def_abstract_eval(_tangents_shapes)
_gradients.def_abstract_eval(_gradients_shapes)
ad.primitive_jvps[_forward] = _forward_tangent
ad.primitive_jvps[_tangents] = _tangents_tangent
ad.primitive_jvps[_gradients] = _gradients_tangent
ad.primitive_transposes[_tangents] = _tangents_transpose
ad.primitive_transposes[_gradients] = _gradients_transpose
