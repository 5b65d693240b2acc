"""Is this installation right? Every op against the reference, on the devices and dtypes that are there.

Unlike the conformance suite this needs no test runner: a backend's command line passes the one function that runs an
op, and prints the rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .conformance import truth
from .conformance.adapter import OpCall, Result, Value
from .conformance.cases import cases as generated_cases
from .conformance.steps import first_step
from .tolerances import rms_error, tolerance

# A few cases per op that between them touch every mode, odd sizes, borders of chunks, states and packing.
CASES: Mapping[str, tuple[str, ...]] = {
    "plstm_1d": ("initial_state", "default_chunk", "special_gates", "state_tracking", "packed"),
    "plstm_1d_step": ("special_gates", "state_tracking"),
    "plstm_2d": ("full_odd_sides", "L_odd_sides", "R_state_tracking", "P_odd_sides", "P_state_tracking"),
    "plstm_2d_oriented": ("full_state_tracking", "L_odd_sides", "R_odd_sides", "P_odd_sides"),
    "plstm_graph": ("dense_states", "chain", "forest_with_lone_nodes", "state_tracking_states"),
}


@dataclass(frozen=True)
class Row:
    """One line of the table: the worst errors over the cases of an op.

    Attributes:
        op: name of the op.
        implementation: name of the implementation.
        device: where it ran.
        dtype: dtype of its arrays.
        output_error: largest relative RMS error of an output or last state, NaN if the op raised.
        gradient_error: the same of a gradient.
        passed: whether all errors are within the tolerances and nothing was raised.
        message: what was raised, empty otherwise.
    """

    op: str
    implementation: str
    device: str
    dtype: str
    output_error: float
    gradient_error: float
    passed: bool
    message: str = ""


def check(
    run_op: Callable[[OpCall], Result],
    implementations: Mapping[str, Sequence[str]],
    *,
    devices: Sequence[str] = ("cpu",),
    dtypes: Sequence[str] = ("float64", "float32", "bfloat16"),
    cases: Mapping[str, Sequence[str]] = CASES,
) -> Iterator[Row]:
    """Compare every op with the reference.

    Args:
        run_op: runs one op, see `conformance.adapter.Adapter.run_op`.
        implementations: names of the implementations to check, by op.
        devices: devices to check.
        dtypes: dtypes to check.
        cases: names of the cases by op, for implementations that do not take all of them.

    Yields:
        A row per op, implementation, device and dtype, as soon as it is known.
    """
    for op, names in implementations.items():
        for implementation in names:
            for device in devices:
                for dtype in dtypes:
                    yield _row(run_op, (op, implementation, device, dtype), cases[op])


def _questions(
    op: str, implementation: str, device: str, dtype: str, names: Sequence[str]
) -> Iterator[tuple[str, OpCall, Result]]:
    """Name, call and right answer of the cases of an op; a step has one form, and takes the first of a sequence."""
    for name in names:
        if op == "plstm_1d_step":
            call = first_step(name, dtype, device)
            yield name, call, truth.evaluate(call)
        else:
            (case,) = (case for case in generated_cases(op) if case.name == name)
            yield name, truth.call(case, implementation, dtype, device), truth.expected(op, name, dtype)


def _row(run_op: Callable[[OpCall], Result], question: tuple[str, str, str, str], names: Sequence[str]) -> Row:
    op, implementation, device, dtype = question
    output_error, gradient_error, passed = 0.0, 0.0, True
    for name, call, expected in _questions(op, implementation, device, dtype, names):
        try:
            result = run_op(call)
            output = rms_error(result.output, expected.output)
            state = _worst(0.0, *_errors(result.last_state, expected.last_state))
            pairs = ((result.gradients[each], gradient) for each, gradient in expected.gradients.items())
            gradient = _worst(0.0, *(error for pair in pairs for error in _errors(*pair)))
        except Exception as error:  # whatever goes wrong is what the user wants to see
            message = f"{name}: {type(error).__name__}: {error}"
            return Row(op, implementation, device, dtype, float("nan"), float("nan"), False, message)
        within = (
            output <= tolerance(dtype, "output")
            and state <= tolerance(dtype, "state")
            and gradient <= tolerance(dtype, "gradient")
        )
        passed = passed and within
        output_error, gradient_error = _worst(output_error, output, state), _worst(gradient_error, gradient)
    return Row(op, implementation, device, dtype, output_error, gradient_error, passed)


def _errors(actual: Value | None, reference: Value | None) -> Iterator[float]:
    if reference is None:
        return
    if isinstance(reference, tuple):
        if not isinstance(actual, tuple):
            raise ValueError(f"state: expected a pair of arrays, got {type(actual).__name__}")
        for one, other in zip(actual, reference, strict=True):
            yield rms_error(one, other)
    else:
        yield rms_error(np.asarray(actual), reference)


def _worst(*errors: float) -> float:
    """The largest; NaN counts as larger than anything."""
    return float(np.max(errors))
