"""Compiled kernels for CPUs: the recurrence on graphs edge by edge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from jax import Array, lax

from plstm_jax.ops._plstm_graph.forms import run_form, suitable_form
from plstm_jax.ops._plstm_graph.plan import GraphPlan
from plstm_jax.ops.kernels import call_kernel, unsupported
from plstm_jax.ops.primitives import Arrays, Passes, run_passes

OP = "the graph op"
_INPUTS = ("query", "key", "value", "source", "transition", "mark")
_TRAILING = (1, 1, 1, 3, 2, 3)  # J dimensions
_PLAN = tuple(field.name for field in fields(GraphPlan) if not field.metadata.get("static"))
_SIZES = tuple(field.name for field in fields(GraphPlan) if field.metadata.get("static"))
_INDICES = ("edges", "line_edges", "node_graph")
# B is the heads, which know nothing of each other; K and V are DK and DV, P a pair
_AXES = {"query": "BNK", "key": "BNK", "value": "BNV", "source": "BE", "transition": "BL", "mark": "BE"}
_AXES |= {"initial": "BEKV", "read": "BNV", "states": "BEKV", "edges": "EP", "line_edges": "LP", "node_graph": "N"}


def without_native_kernels(query: Any, sizes: Mapping[str, int]) -> str | None:
    """Why the kernels cannot take a call with these sizes, None if they can."""
    return unsupported(OP, query, {name: size for name, size in sizes.items() if name.startswith("J")})


def native(plan: GraphPlan, given: list[Array], *, with_states: bool) -> tuple[Array, ...]:
    """Run the op; as `run_form`, for scalar gates."""
    inputs = [lax.squeeze(array, range(array.ndim - n, array.ndim)) for array, n in zip(given, _TRAILING, strict=False)]
    if with_states:
        *_, state = given
        shape = (*inputs[3].shape, inputs[0].shape[2], inputs[2].shape[2])
        inputs.append(state[..., 0] if len(given) > len(_INPUTS) else lax.full(shape, 0, inputs[0].dtype))
    sizes = tuple(getattr(plan, name) for name in _SIZES)
    results = run_passes(_Walk(with_states, sizes), [*inputs, *(getattr(plan, name) for name in _PLAN)])
    return tuple(lax.expand_dims(array, [array.ndim]) for array in results)


@dataclass(frozen=True)
class _Walk(Passes):
    """The passes over graphs; with states that enter edges and are wanted, or without."""

    states: bool
    sizes: tuple[int, ...]  # the static fields of the plan

    @property
    def names(self) -> tuple[str, ...]:
        """The arguments; indices last."""
        return (*_INPUTS, *(("initial",) if self.states else ()), *_PLAN)

    @property
    def results(self) -> tuple[str, ...]:
        """Names of what a call returns."""
        return ("read", "states") if self.states else ("read",)

    @property
    def indices(self) -> int:
        return len(_PLAN)

    @property
    def num_results(self) -> int:
        return len(self.results)

    def shapes(self, *inputs: tuple[int, ...]) -> list[tuple[int, ...]]:
        named = dict(zip(self.names, inputs, strict=False))
        return [named["value"], named["initial"]] if self.states else [named["value"]]

    def formula(self, *inputs: Array) -> tuple[Array, ...]:
        arrays, plan = inputs[: -len(_PLAN)], self._plan(inputs)
        given = [
            lax.expand_dims(array, range(array.ndim, array.ndim + n))
            for array, n in zip(arrays, (*_TRAILING, 1), strict=False)
        ]
        form = suitable_form(plan.max_edges, with_states=self.states)
        return tuple(array[..., 0] for array in run_form(plan, form, given, with_states=self.states))

    def forward(self, *inputs: Array) -> tuple[Array, ...]:
        shapes = self.shapes(*(array.shape for array in inputs))
        return self._call("graph_forward", inputs, (), dict(zip(self.results, shapes, strict=True)))

    def gradients(self, inputs: Arrays, cotangents: Arrays) -> tuple[Array, ...]:
        named = zip(self.names, inputs[: -len(_PLAN)], strict=False)
        return self._call("graph_gradients", inputs, cotangents, {name: array.shape for name, array in named})

    def _plan(self, inputs: Arrays) -> GraphPlan:
        indices = dict(zip(_PLAN, inputs[-len(_PLAN) :], strict=True))
        return GraphPlan(**indices, **dict(zip(_SIZES, self.sizes, strict=True)))  # type: ignore[arg-type]

    def _call(
        self, kernel: str, inputs: Arrays, cotangents: Arrays, results: Mapping[str, tuple[int, ...]]
    ) -> tuple[Array, ...]:
        """Call a kernel; axes of what is filled up are as long as those of the plan."""
        plan = self._plan(inputs)
        arrays = dict(zip(self.names, inputs[: -len(_PLAN)], strict=False))
        arrays |= {f"d_{name}": array for name, array in zip(self.results, cotangents, strict=False)}
        arrays |= {name: getattr(plan, name) for name in _INDICES}
        axes = _AXES | {f"d_{name}": _AXES[name] for name in self.results}
        return call_kernel(kernel, arrays, axes, results, graphs=[plan.num_graphs])
