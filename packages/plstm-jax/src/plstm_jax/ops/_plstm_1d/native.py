"""Compiled kernels for CPUs: the recurrence step by step, whatever the length and the state-tracking dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from plstm_jax.ops._plstm_1d.chunkwise import chunkwise, default_chunk_size
from plstm_jax.ops._plstm_1d.problem import Problem, Steps
from plstm_jax.ops.arrays import swap_state
from plstm_jax.ops.kernels import call_kernel, unsupported
from plstm_jax.ops.primitives import Arrays, Passes, run_passes

OP = "the 1D op"
# K and V are DK and DV, small letters the J dimensions (u is JT again), N the boundaries of packed sequences
_AXES = {"query": "BTKq", "key": "BTKk", "value": "BTVv", "source": "BTtkv", "transition": "BTtu", "mark": "BToqt"}
_AXES |= {"direct": "BToqkv", "initial": "BSKVt", "bounds": "N", "output": "BTVo", "last": "BSKVt"}


def without_native_kernels(query: Any) -> str | None:
    """Why the kernels cannot take a call, None if they can."""
    return unsupported(OP, query, {})


def native(steps: Steps, states: Array | None, bounds: Array | None) -> tuple[Array, Array | None]:
    """Run the op; no axis is empty.

    Args:
        steps: mark and direct scaled.
        states: what enters each sequence [B,S,DK,DV,JT]; None if none enters and none is wanted back.
        bounds: where packed sequences begin and end [S+1], int32; None if there is but one.

    Returns:
        Output [B,T,DV,JO] and, if states enter, the last ones.
    """
    given = [array for array in (states, bounds) if array is not None]
    output, *last = run_passes(_Walk(states is not None, bounds is not None), [*steps, *given])
    return output, last[0] if last else None


@dataclass(frozen=True)
class _Walk(Passes):
    """The passes over sequences; with states that enter and leave, or without; packed, or one of each batch."""

    states: bool
    packed: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The arguments; indices last."""
        return (*Steps._fields, *(("initial",) if self.states else ()), *(("bounds",) if self.packed else ()))

    @property
    def results(self) -> tuple[str, ...]:
        """Names of what a call returns."""
        return ("output", "last") if self.states else ("output",)

    @property
    def indices(self) -> int:
        return int(self.packed)

    @property
    def num_results(self) -> int:
        return len(self.results)

    def shapes(self, *inputs: tuple[int, ...]) -> list[tuple[int, ...]]:
        named = dict(zip(self.names, inputs, strict=False))
        output = (*named["value"][:3], named["mark"][2])
        return [output, named["initial"]] if self.states else [output]

    def formula(self, *inputs: Array) -> tuple[Array, ...]:
        named = dict(zip(self.names, inputs, strict=True))
        steps = Steps(*(named[name] for name in Steps._fields))
        bounds = named.get("bounds")
        states = named["initial"] if self.states else _zeros(steps, 1 if bounds is None else bounds.shape[0] - 1)
        problem = Problem(steps, jnp.moveaxis(swap_state(states), 1, 0), bounds)
        output, last = chunkwise(problem, default_chunk_size(steps))
        return (output, swap_state(jnp.moveaxis(last, 0, 1))) if self.states else (output,)

    def forward(self, *inputs: Array) -> tuple[Array, ...]:
        named = dict(zip(self.names, inputs, strict=True))
        shapes = self.shapes(*(array.shape for array in inputs))
        return _call("sequence_forward", named, {}, dict(zip(self.results, shapes, strict=True)))

    def gradients(self, inputs: Arrays, cotangents: Arrays) -> tuple[Array, ...]:
        named = dict(zip(self.names, inputs, strict=True))
        shapes = {name: array.shape for name, array in named.items() if name != "bounds"}
        return _call("sequence_gradients", named, dict(zip(self.results, cotangents, strict=True)), shapes)


def _call(
    kernel: str, named: Mapping[str, Array], cotangents: Mapping[str, Array], results: Mapping[str, tuple[int, ...]]
) -> tuple[Array, ...]:
    """Call a kernel, to which boundaries come last."""
    numbers = {name: array for name, array in named.items() if name != "bounds"}
    return call_kernel(kernel, {**numbers, **cotangents, **named}, _AXES, results)


def _zeros(steps: Steps, sequences: int) -> Array:
    (batch, _, dk, _), dv, jt = steps.query.shape, steps.value.shape[2], steps.transition.shape[-1]
    return jnp.zeros((batch, sequences, dk, dv, jt), steps.query.dtype)
