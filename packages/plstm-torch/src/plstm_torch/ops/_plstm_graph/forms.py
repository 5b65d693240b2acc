"""Which form computes what the nodes read from the edges."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from plstm_torch.ops._exporting import is_exporting
from plstm_torch.ops._fast_form import Tensors, apply_form
from plstm_torch.ops._plstm_graph.dense import DenseForm, DenseStatesForm
from plstm_torch.ops._plstm_graph.levels import LevelForm, careful, edge_factors, read_by_levels
from plstm_torch.ops._plstm_graph.native import NativeForm
from plstm_torch.ops._plstm_graph.plan import LevelSchedule
from plstm_torch.ops._plstm_graph.triton.form import KernelForm

# Edges of the largest graph up to which one triangular solve is faster than the levels (README.md).
_FEW_EDGES = 100


def resolve_implementation(implementation: str, max_edges: int, with_states: bool) -> str:
    """The implementation that a name stands for.

    Args:
        implementation: the name asked for.
        max_edges: edges of the largest graph; of no influence with states.
        with_states: whether states enter or are asked for.

    Returns:
        The choice of "auto"; any other name as it is.
    """
    if implementation != "auto":
        return implementation
    return "parallel" if not with_states and max_edges <= _FEW_EDGES else "recurrent"


def dense_form(schedule: LevelSchedule, key: Tensor, value: Tensor, source: Tensor) -> DenseForm:
    """The form without states by one triangular solve for every graph; arguments as those of `DenseForm`."""
    numbers = source.shape[1] * source.shape[2] * key.shape[2] * value.shape[2]
    return DenseForm(schedule.dense, careful(partial(read_by_levels, schedule), numbers))


def states_form(
    schedule: LevelSchedule, implementation: str, return_states: bool, key: Tensor, written: Tensor
) -> LevelForm | DenseStatesForm:
    """The form with states.

    Args:
        schedule: of the graphs.
        implementation: "recurrent" or "parallel".
        return_states: whether they are asked for; "parallel" returns them in any case.
        key: as `LevelForm` takes it.
        written: as `LevelForm` takes it.

    Returns:
        The form.
    """
    by_level = LevelForm(schedule, return_states or implementation == "parallel")
    if implementation != "parallel":
        return by_level
    numbers = written.shape[1] * written.shape[2] * key.shape[2] * written.shape[4]
    return DenseStatesForm(schedule.dense, careful(partial(apply_form, by_level), numbers))


def kernel_form(schedule: LevelSchedule, implementation: str, return_states: bool) -> NativeForm | KernelForm:
    """The form in kernels: "native" for CPUs, "triton" for CUDA devices."""
    return (NativeForm if implementation == "native" else KernelForm)(schedule, return_states)


def walk_now(
    schedule: LevelSchedule,
    implementation: str,
    return_states: bool,
    own: Tensor,
    inputs: Tensors,
    initial: list[Tensor],
) -> tuple[Tensor, Tensor | None]:
    """Add what the nodes read from the edges.

    Args:
        schedule: of the graphs.
        implementation: any of the names; "auto" stands for those without kernels.
        return_states: whether the states are asked for.
        own: what every node reads from itself [H,N,DV,JO].
        inputs: as `DenseForm` takes them.
        initial: what enters each edge [H,E,JT,DK,DV], or nothing.

    Returns:
        Output [H,N,DV,JO], and states [H,E,JT,DK,DV] in the order of the schedule or None.
    """
    if implementation in ("native", "triton"):
        form, given = kernel_form(schedule, implementation, return_states), (*inputs, *initial)
        read, *states = form.formula(*given) if is_exporting() else apply_form(form, *given)
        return own + read, states[0] if return_states else None
    with_states = bool(initial) or return_states
    name = resolve_implementation(implementation, schedule.max_edges, with_states)
    if name == "parallel" and not with_states:
        return own + apply_form(dense_form(schedule, *inputs[1:4]), *inputs)[0], None
    factors = edge_factors(schedule, *inputs)
    results = apply_form(states_form(schedule, name, return_states, *factors[:2]), *factors, *initial)
    return own.index_add(1, schedule.head, results[0].mT), results[1] if return_states else None
