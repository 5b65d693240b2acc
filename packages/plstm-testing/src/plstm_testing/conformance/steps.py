"""One step of the recurrence on sequences: a chain of them is the sequence."""

from dataclasses import replace
from typing import Any

import numpy as np

from plstm_config.shapes import PLSTM_1D

from ..tolerances import assert_close
from . import truth
from .adapter import Adapter, OpCall
from .cases import cases

CASES = ("initial_state", "special_gates", "own_scale", "state_tracking", "wide_scalar_state", "empty_batch")


def check_chain(adapter: Adapter, name: str) -> None:
    """Every step on the state that the last one left gives outputs and last state of the sequence."""
    whole = _sequence(name, "float64", adapter.devices[0])
    state, outputs = whole.arguments["initial_state"], []
    for place in range(whole.arguments["query"].shape[1]):
        result = adapter.run_op(replace(one_step(whole, place, state), cotangent=None, cotangent_state=None))
        outputs.append(result.output)
        state = result.last_state
    expected = truth.expected("plstm_1d", name, "float64")
    assert_close(np.stack(outputs, axis=1), expected.output, "float64", "output", "output of the steps")
    assert_close(state, expected.last_state, "float64", "state", "state after the steps")  # type: ignore[arg-type]


def first_step(name: str, dtype: str, device: str) -> OpCall:
    """The call that asks for the first step of a sequence, and its gradients.

    Args:
        name: of the case.
        dtype: of the arguments.
        device: where to run it.

    Returns:
        The call.
    """
    whole = _sequence(name, dtype, device)
    return one_step(whole, 0, whole.arguments["initial_state"])


def check_bad_argument(adapter: Adapter, argument: str) -> None:
    """An argument of another rank is refused by name."""
    step = replace(first_step("state_tracking", "float32", adapter.devices[0]), cotangent=None, cotangent_state=None)
    bad = {**step.arguments, argument: step.arguments[argument][..., 0]}
    try:
        adapter.run_op(replace(step, arguments=bad))
    except ValueError as error:
        if not str(error).startswith(f"{argument}: expected ["):
            raise AssertionError(f"expected a message that begins with {argument}, got {error}") from error
        return
    raise AssertionError(f"expected ValueError for {argument}, got a result")


def one_step(whole: OpCall, place: int, state: Any) -> OpCall:
    """The call that asks for one step of a sequence, with the weights of that step and of the last state.

    Args:
        whole: the sequence.
        place: of the step.
        state: before it.

    Returns:
        The call.
    """
    arguments = {argument: whole.arguments[argument][:, place] for argument in PLSTM_1D}
    scale = {name: value for name, value in whole.keywords.items() if name == "scale"}
    cotangent = None if whole.cotangent is None else whole.cotangent[:, place]
    return replace(
        whole, op="plstm_1d_step", arguments={**arguments, "state": state}, keywords=scale, cotangent=cotangent
    )


def _sequence(name: str, dtype: str, device: str) -> OpCall:
    (case,) = (case for case in cases("plstm_1d") if case.name == name)
    return truth.call(case, "auto", dtype, device)
