"""Compiled kernels for CPUs: the recurrence node by node, or masked attention whose mask they make.

Products of whole matrices run at ten times the rate of a walk, so on a small grid the quadratic form is faster, though
it does more. What the mask costs beside its products is little: it is a walk of numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

import plstm_native
from plstm_jax.ops._plstm_2d.forms import run_form, suitable_form
from plstm_jax.ops._plstm_2d.parallel import attend_through
from plstm_jax.ops._plstm_2d.problem import FOUR_ORIENTATIONS, ONE_ORIENTATION, Flips, Gates, Problem, Result
from plstm_jax.ops._plstm_2d.spoilt import without_spoilt
from plstm_jax.ops.kernels import call_kernel, lanes, unsupported
from plstm_jax.ops.primitives import Arrays, Passes, run_passes

# Largest grids for which the quadratic form is faster, forward and backward, by the kernels' names of the modes
MASKED_NODES = {"P": 24**2, "L": 28**2, "R": 28**2, "general": 28**2, "straight": 28**2}
_VECTORS = ("query", "key", "value", "direct")
_STATES = ("left", "top")
# K and V are DK and DV, N and M nodes
_AXES = {"query": "BXYK", "key": "BXYK", "value": "BXYV", "direct": "BXY", "left": "BOYKV", "top": "BOXKV"}
_AXES |= dict.fromkeys(plstm_native.GATES, "BOXY") | {"mask": "BNM", "marks": "BXY"}
_RESULTS = {"output": "value", "right": "left", "bottom": "top"}  # and what they are shaped as
_MODES = {frozenset(plstm_native.gates_of(mode)): mode for mode in plstm_native.MODES}


def without_native_kernels(query: Any, sizes: Mapping[str, int]) -> str | None:
    """Why the kernels cannot take a call with these sizes, None if they can."""
    return unsupported("the 2D op", query, {name: size for name, size in sizes.items() if name.startswith("J")})


def native(problem: Problem) -> Result:
    """Run the op; scalar gates, no axis empty."""
    given = {name: gate for name, gate in problem.gates._asdict().items() if gate is not None}
    mode = _MODES[frozenset(given)]
    arrays = {name: getattr(problem, name) for name in _VECTORS}
    arrays |= {name: given[name] for name in plstm_native.gates_of(mode)}
    inputs = [lax.reshape(array, array.shape[: len(_AXES[name])]) for name, array in arrays.items()]
    if problem.needs_states:
        inputs += [lax.squeeze(state, [4]) for state in (problem.left, problem.top)]
    output, *leaving = run_passes(_Walk(mode, problem.needs_states), inputs)
    right, bottom = (lax.expand_dims(state, [4]) for state in leaving) if leaving else (problem.left, problem.top)
    return Result(lax.expand_dims(output, [4]), right, bottom)


@dataclass(frozen=True)
class _Walk(Passes):
    """The passes over grids of one mode; with states that enter and leave, or without."""

    mode: str
    states: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The arguments in the order of the kernels."""
        return (*_VECTORS, *plstm_native.gates_of(self.mode), *(_STATES if self.states else ()))

    @property
    def num_results(self) -> int:
        return len(self._likes)

    def shapes(self, *inputs: tuple[int, ...]) -> list[tuple[int, ...]]:
        return [inputs[self.names.index(like)] for like in self._likes.values()]

    @property
    def _likes(self) -> dict[str, str]:
        return _RESULTS if self.states else {"output": "value"}

    def formula(self, *inputs: Array) -> tuple[Array, ...]:
        problem = self._problem(dict(zip(self.names, inputs, strict=True)))
        name = suitable_form(*problem.query.shape[1:3])
        result = run_form(problem, name, enters=self.states)
        output = result.output[..., 0]
        return (output, result.right[..., 0, :], result.bottom[..., 0, :]) if self.states else (output,)

    def forward(self, *inputs: Array) -> tuple[Array, ...]:
        if self._is_masked(inputs):
            return self._masked(*inputs)
        given = dict(zip(self.names, inputs, strict=True))
        return self._call("grid_forward", given, {}, tuple(self._likes.values()))

    def gradients(self, inputs: Arrays, cotangents: Arrays) -> tuple[Array, ...]:
        if self._is_masked(inputs):
            return jax.vjp(self._masked, *inputs)[1](tuple(cotangents))
        given = dict(zip(self.names, inputs, strict=True))
        return self._call("grid_gradients", given, dict(zip(self._likes, cotangents, strict=True)), self.names)

    def _is_masked(self, inputs: Arrays) -> bool:
        _, x, y, _ = inputs[0].shape
        return not self.states and x * y <= MASKED_NODES[self.mode]

    def _masked(self, *inputs: Array) -> tuple[Array]:
        """Attention through a mask, which would let what is not finite reach all nodes."""
        problem = self._problem(dict(zip(self.names, inputs, strict=True)))
        clean = without_spoilt(problem, enters=False)
        gates = {name: gate[..., 0, 0] for name, gate in clean.gates._asdict().items() if gate is not None}
        gates = {name: gate[..., 0] if "transition" not in name else gate for name, gate in gates.items()}
        mask = _mask(self.mode, clean.direct[..., 0, 0, 0, 0], *(gates[n] for n in plstm_native.gates_of(self.mode)))
        output = attend_through((clean.query, clean.key, clean.value), mask)
        return (output[..., 0] * _marks(self.mode, dict(zip(self.names, inputs, strict=True)))[..., None],)

    def _call(
        self, kernel: str, given: Mapping[str, Array], cotangents: Mapping[str, Array], results: tuple[str, ...]
    ) -> tuple[Array, ...]:
        """Call a kernel with arrays whose columns of values fill whole vectors."""
        axes = _AXES | {name: _AXES[like] for name, like in _RESULTS.items()}
        dv = given["value"].shape[-1]
        more = -dv % lanes(given["value"].dtype)
        arrays = {name: _padded(array, axes[name], more) for name, array in {**given, **cotangents}.items()}
        shapes = {name: arrays[name].shape for name in results}
        found = call_kernel(kernel, arrays, axes, shapes, **_attributes(self.mode, given["source_r"]))
        return tuple(
            array[..., :dv] if axes[name].endswith("V") else array for name, array in zip(results, found, strict=True)
        )

    def _problem(self, given: Mapping[str, Array]) -> Problem:
        """The call as the other forms take it."""
        gates = Gates(*(_lifted(given.get(name), 3 if "transition" not in name else 2) for name in Gates._fields))
        query, key, value = (given[name][..., None] for name in ("query", "key", "value"))
        direct = lax.expand_dims(given["direct"], range(3, 7))
        left, top = (self._state(given, name) for name in _STATES)
        return Problem(query, key, value, gates, direct, _flips(given["source_r"]), left, top, self.states)

    def _state(self, given: Mapping[str, Array], name: str) -> Array:
        if name in given:
            return lax.expand_dims(given[name], [4])
        sizes = dict(zip("BXYK", given["query"].shape, strict=True)) | {"O": given["source_r"].shape[1]}
        sizes["V"] = given["value"].shape[-1]
        b, o, side, k, v = (sizes[letter] for letter in _AXES[name])
        return jnp.zeros([b, o, side, k, 1, v], given["query"].dtype)


def _marks(mode: str, given: Mapping[str, Array]) -> Array:
    """NaN for the nodes that are reached by something that is not finite, 1 for all others [B, X, Y]."""
    named = {name: lax.stop_gradient(array) for name, array in given.items() if name != "query"}
    attributes = _attributes(mode, named["source_r"])
    return call_kernel("grid_marks", named, _AXES, {"marks": named["direct"].shape}, **attributes)[0]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mask(mode: str, *arrays: Array) -> Array:
    """What every node hears of every other [B, N, N], from `direct` and the gates of the mode."""
    named = dict(zip(("direct", *plstm_native.gates_of(mode)), arrays, strict=True))
    batch, x, y = named["direct"].shape
    shapes = {"mask": (batch, x * y, x * y)}
    return call_kernel("grid_mask", named, _AXES, shapes, **_attributes(mode, named["source_r"]))[0]


def _mask_forward(mode: str, *arrays: Array) -> tuple[Array, tuple[Array, ...]]:
    return _mask(mode, *arrays), arrays


def _mask_backward(mode: str, arrays: tuple[Array, ...], cotangent: Array) -> tuple[Array, ...]:
    named = dict(zip(("direct", *plstm_native.gates_of(mode)), arrays, strict=True))
    shapes = {name: array.shape for name, array in named.items()}
    attributes = _attributes(mode, named["source_r"])
    return call_kernel("grid_mask_gradients", {**named, "mask": cotangent}, _AXES, shapes, **attributes)


_mask.defvjp(_mask_forward, _mask_backward)


def _attributes(mode: str, gate: Array) -> dict[str, list[int]]:
    flips = [int(walked) for flip in _flips(gate) for walked in flip]
    return {"mode": [plstm_native.MODES.index(mode)], "flips": flips}


def _flips(gate: Array) -> Flips:
    return ONE_ORIENTATION if gate.shape[1] == 1 else FOUR_ORIENTATIONS


def _lifted(gate: Array | None, axes: int) -> Any:
    return None if gate is None else lax.expand_dims(gate, range(gate.ndim, gate.ndim + axes))


def _padded(array: Array, axes: str, more: int) -> Array:
    if more == 0 or not axes.endswith("V"):
        return array
    return jnp.pad(array, [*((0, 0),) * (array.ndim - 1), (0, more)])
