"""The compiled kernels for CPUs as XLA calls them: what they take, and one call of one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import mlir

import plstm_native

_Attributes = tuple[tuple[str, tuple[int, ...]], ...]
_BATCH = "B"  # the axis along which devices may share the work


def unsupported(op: str, array: Any, sizes: Mapping[str, int]) -> str | None:
    """Why the kernels of an op cannot take a call.

    Args:
        op: name of the op, for the message.
        array: any argument of the call.
        sizes: the J dimensions, by letters.

    Returns:
        The reason as a sentence, None if they can.
    """
    platform = _platform(array)
    if platform != "cpu":
        return f"native kernels run on the CPU, got {platform}"
    return plstm_native.scalar_only(op, sizes) or plstm_native.unavailable()


def lanes(dtype: Any) -> int:
    """How many numbers a vector holds: DV of grids has to be a multiple of it."""
    return plstm_native.xla_lanes(np.dtype(dtype).name, "grid", jax.ffi.include_dir())


def call_kernel(
    name: str,
    arrays: Mapping[str, Array],
    axes: Mapping[str, str],
    results: Mapping[str, tuple[int, ...]],
    **attributes: Sequence[int],
) -> tuple[Array, ...]:
    """Call a kernel; only where a program is lowered for CPUs.

    Args:
        name: of the kernel.
        arrays: its arguments in order: numbers, all of one dtype, then indices in int32.
        axes: a letter for each axis of them and of the results, B for the batch; of indices without it.
        results: their shapes.
        attributes: whole numbers that are known while compiling.

    Returns:
        The results.
    """
    first = next(iter(arrays.values()))
    if len(first) == 0:
        return tuple(jnp.zeros(shape, first.dtype) for shape in results.values())
    letters = [axes[argument] for argument in (*arrays, *results)]
    return tuple(
        _kernel.bind(
            *(_each(len(first), array, axes[argument]) for argument, array in arrays.items()),
            target=_target(name, first.dtype.name),
            axes=tuple(each if each.startswith(_BATCH) else _BATCH + each for each in letters),
            results=tuple(results.values()),
            attributes=tuple((key, tuple(map(int, values))) for key, values in attributes.items()),
        )
    )


def _each(batch: int, array: Array, axes: str) -> Array:
    """The partitioner wants a batch in front of everything; indices take little room."""
    return array if axes.startswith(_BATCH) else lax.broadcast(array, (batch,))


@cache
def _target(name: str, dtype: str) -> str:
    """The name by which XLA knows a kernel, once all of its op and dtype are registered."""
    return _register(name.split("_")[0], dtype)[name]


@cache
def _register(kernels: str, dtype: str) -> dict[str, str]:
    targets = {}
    for name, function in plstm_native.xla_handlers(dtype, kernels, jax.ffi.include_dir()).items():
        targets[name] = f"plstm_{name}_{dtype}"
        jax.ffi.register_ffi_target(targets[name], jax.ffi.pycapsule(function), platform="cpu")
        jax.ffi.register_ffi_target_as_batch_partitionable(targets[name])
    return targets


def _platform(array: Any) -> str:
    """Where an array lies; where what is traced will run is not known for certain, but by default it is here."""
    if isinstance(array, jax.Array) and not isinstance(array, jax.core.Tracer):
        return next(iter(array.devices())).platform
    default: Any = jax.config.jax_default_device  # type: ignore[attr-defined]
    if default is None:
        return jax.default_backend()
    return default if isinstance(default, str) else default.platform


_kernel = Primitive("plstm_kernel")
_kernel.multiple_results = True


def _results(*arrays: Any, results: tuple[tuple[int, ...], ...], **_: Any) -> list[Any]:
    return shaped(arrays, results)


def shaped(arrays: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    """What is known of results while tracing, from what is known of arguments: more than shapes."""
    alike = {aval.ndim: aval for aval in reversed(arrays) if jnp.issubdtype(aval.dtype, jnp.floating)}
    return [alike[len(shape)].update(shape=tuple(shape)) for shape in shapes]


def _lower(
    context: mlir.LoweringRuleContext, *operands: Any, target: str, axes: Any, results: Any, attributes: _Attributes
) -> Any:
    extra = {"mhlo.frontend_attributes": mlir.ir_attribute({"num_batch_dims": "1"})}
    if getattr(jax.config, "jax_use_shardy_partitioner", True):
        extra["sdy.sharding_rule"] = _sharding_rule(context, axes)
    rule = jax.ffi.ffi_lowering(target, extra_attributes=extra)
    return rule(context, *operands, **{name: np.array(values, np.int64) for name, values in attributes})


def _sharding_rule(context: mlir.LoweringRuleContext, axes: Sequence[str]) -> Any:
    """Devices may share the batch, and nothing else: to Shardy, every axis is a factor, whose names begin with i."""
    sizes = {
        letter: size
        for letters, aval in zip(axes, (*context.avals_in, *context.avals_out), strict=True)
        for letter, size in zip(letters, aval.shape, strict=True)
    }
    names = {letter: chr(ord("i") + place) for place, letter in enumerate(sizes)}

    def spelled(each: Sequence[str]) -> str:
        return ", ".join(f"[{', '.join(names[letter] for letter in letters)}]" for letters in each)

    factors = ", ".join(f"{names[letter]}={size}" for letter, size in sizes.items())
    whole = ", ".join(name for letter, name in names.items() if letter != _BATCH)
    number = len(context.avals_in)
    text = f"({spelled(axes[:number])})->({spelled(axes[number:])}) {{{factors}}} need_replication={{{whole}}}, custom"
    return mlir.ir.Attribute.parse(f"#sdy.op_sharding_rule<{text}>", context.module_context.context)


_kernel.def_abstract_eval(_results)
mlir.register_lowering(_kernel, _lower, platform="cpu")
