"""All checks as plain functions: each one passes silently or raises AssertionError."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from plstm_config.shapes import PLSTM_1D_STEP

from .. import golden
from ..tolerances import assert_close, assert_within, rms
from . import (
    composition,
    errors,
    files,
    initial_values,
    input_types,
    isolation,
    long_range,
    module_errors,
    modules,
    sequences,
    signatures,
    steps,
    truth,
)
from .adapter import Adapter, OpCall, Result, Value
from .cases import OPS, SCALAR, STATE_TRACKING, cases
from .compiled import compiles, is_asked
from .draws import Case
from .lacks import Scoped, lacks, refusals
from .sharing import sharing_cases


@dataclass(frozen=True)
class Check:
    """A named check.

    Attributes:
        name: name within its group.
        run: raises AssertionError if the backend fails, `lacks.NotAskedError` where it says that it lacks something.
    """

    name: str
    run: Callable[[], None]


def all_checks(adapter: Adapter) -> dict[str, list[Check]]:
    """Every check of a backend.

    Args:
        adapter: the backend.

    Returns:
        Checks by group: "signatures", "values", "sharing", "steps", "layouts", "composition", "long_range",
        "errors", "refusals", "isolation", "golden_ops", "golden_modules"; those of modules, empty without any:
        "layers", "models", "stepped_layers", "packed_layers", "input_types", "module_errors", "initial_values",
        "files". Groups that the adapter says it lacks are empty.

    Raises:
        ValueError: if the adapter lacks what has no such name.

    Examples:
        >>> from plstm_testing.conformance import all_checks
        >>> from plstm_testing.conformance.numpy_adapter import adapter
        >>> checks = all_checks(adapter)
        >>> checks["steps"][0].run()  # raises an AssertionError if the backend is wrong
    """
    groups: Mapping[str, Callable[[Adapter], Iterator[Check]]] = {
        "signatures": _signature_checks,
        "values": _value_checks,
        "sharing": _sharing_checks,
        "steps": _step_checks,
        "layouts": _layout_checks,
        "composition": _composition_checks,
        "long_range": _long_range_checks,
        "errors": _error_checks,
        "refusals": _refusal_checks,
        "isolation": _isolation_checks,
        "golden_ops": _golden_op_checks,
        "golden_modules": _golden_module_checks,
    }
    lacked, adapter = lacks(adapter), Scoped(adapter)
    has_ops = bool(adapter.ops)  # one whose ops are those of another backend is not asked for them again
    found = {
        group: list(generate(adapter)) if has_ops or group == "golden_modules" else []
        for group, generate in groups.items()
    }
    of_modules = {
        "layers": modules.checks(adapter, "layers"),
        "models": modules.checks(adapter, "models"),
        "stepped_layers": sequences.step_checks(adapter),
        "packed_layers": sequences.packed_checks(adapter),
        "input_types": input_types.checks(adapter),
        "module_errors": module_errors.checks(adapter),
        "initial_values": initial_values.checks(adapter),
        "files": files.checks(adapter),
    }
    found |= {group: [Check(name, run) for name, run in named] for group, named in of_modules.items()}
    return {group: [] if group in lacked else asked for group, asked in found.items()}


def implementations(adapter: Adapter, op: str) -> tuple[str, ...]:
    """Implementations of an op, "auto" last."""
    return (*adapter.implementations.get(op, ()), "auto")


def named_implementations(adapter: Adapter, op: str) -> tuple[str, ...]:
    """The same without "auto" for a backend that compiles, where it is one of the others: the same program again."""
    named = tuple(adapter.implementations.get(op, ()))
    return named if named and compiles(adapter) else implementations(adapter, op)


def compare(result: Result, expected: Result, call: OpCall) -> None:
    """Compare everything that came back with the reference.

    Args:
        result: what the backend answered.
        expected: what the reference answered.
        call: the question.

    Raises:
        AssertionError: on the first disagreement.
    """
    value_dtype, state_dtype = call.dtype, truth.state_dtype(call.dtype)
    if result.output_dtype != value_dtype:
        raise AssertionError(f"output: expected dtype {value_dtype}, that of value, got {result.output_dtype}")
    assert_close(result.output, expected.output, call.dtype, "output", "output")
    if expected.last_state is not None:
        if result.state_dtype != state_dtype:
            raise AssertionError(f"last_state: expected dtype {state_dtype}, got {result.state_dtype}")
        _compare_values(result.last_state, expected.last_state, call.dtype, "state", "last_state")
    if not result.has_gradients:
        return
    if set(result.gradients) != set(expected.gradients):
        raise AssertionError(f"gradients: expected {sorted(expected.gradients)}, got {sorted(result.gradients)}")
    for name, gradient in expected.gradients.items():
        _compare_values(result.gradients[name], gradient, call.dtype, "gradient", f"gradient of {name}")


def check_case(adapter: Adapter, case: Case, implementation: str, dtype: str, device: str) -> None:
    """Compare one generated case with the reference: output, states, all gradients, dtypes."""
    call = truth.call(case, implementation, dtype, device)
    compare(adapter.run_op(call), truth.expected(case.op, case.name, dtype), call)


def check_layout(adapter: Adapter, case: Case, implementation: str, device: str) -> None:
    """The same with arrays that are not contiguous."""
    call = truth.call(case, implementation, "float64", device, strided=True)
    compare(adapter.run_op(call), truth.expected(case.op, case.name, "float64"), call)


def check_step(adapter: Adapter, name: str, dtype: str) -> None:
    """Compare the first step of a sequence with the reference: output, state, all gradients, dtypes."""
    call = steps.first_step(name, dtype, adapter.devices[0])
    compare(adapter.run_op(call), truth.evaluate(call), call)


def check_golden_op(adapter: Adapter, name: str, implementation: str) -> None:
    """Compare an op with what the original project computed."""
    case = golden.load(name)
    if GOLDEN_OPS[case.kind] not in adapter.ops:
        raise AssertionError(f"{name}: expected the backend {adapter.name!r} to have {GOLDEN_OPS[case.kind]}")
    inputs: dict[str, Any] = dict(case.inputs)
    cotangent, cotangent_state = inputs.pop("cotangent"), inputs.pop("cotangent_state", None)
    keywords: dict[str, Any] = {"implementation": implementation, "return_last_state": cotangent_state is not None}
    if case.kind == "op_graph":
        edges, line_edges = inputs.pop("edges"), inputs.pop("line_edges")
        keywords["topology"] = signatures.Topology(inputs["query"].shape[1], edges, line_edges)
    if case.kind in ("op_2d", "op_2d_four_orientations"):
        for absent in ("transition_dl", "transition_ru"):
            inputs.setdefault(absent, None)
    device = adapter.devices[0]
    call = OpCall(GOLDEN_OPS[case.kind], inputs, {}, keywords, cotangent, cotangent_state, device=device)
    compare_golden(adapter.run_op(call), case)


def compare_golden(result: Result, case: golden.GoldenCase) -> None:
    """Compare outputs and recorded gradients at ten times the accuracy of the recording."""
    assert_within(result.output, case.outputs["output"], case.limit, f"{case.name}: output")
    if "last_state" in case.outputs:
        if not isinstance(result.last_state, np.ndarray):
            raise AssertionError(f"{case.name}: expected a last state, got {type(result.last_state).__name__}")
        assert_within(result.last_state, case.outputs["last_state"], case.limit, f"{case.name}: last_state")
    recorded = case.gradients if result.has_gradients else {}
    missing = sorted(set(recorded) - set(result.gradients))
    if missing:
        raise AssertionError(f"{case.name}: expected gradients of {missing}, got {sorted(result.gradients)}")
    for name, gradient in recorded.items():
        assert_within(np.asarray(result.gradients[name]), gradient, case.limit, f"{case.name}: gradient of {name}")
    if case.gradients and rms(result.output) == 0:
        raise AssertionError(f"{case.name}: the output is zero everywhere")


GOLDEN_OPS = {
    "op_1d": "plstm_1d",
    "op_2d": "plstm_2d",
    "op_2d_four_orientations": "plstm_2d_oriented",
    "op_graph": "plstm_graph",
}


def _compare_values(actual: Value | None, reference: Value, dtype: str, kind: str, label: str) -> None:
    if isinstance(reference, tuple):
        if not isinstance(actual, tuple) or len(actual) != len(reference):
            raise AssertionError(f"{label}: expected a pair of arrays, got {type(actual).__name__}")
        for position, (one, other) in enumerate(zip(actual, reference, strict=True)):
            assert_close(one, other, dtype, kind, f"{label}[{position}]")  # type: ignore[arg-type]
    else:
        assert_close(actual, reference, dtype, kind, label)  # type: ignore[arg-type]


def _signature_checks(adapter: Adapter) -> Iterator[Check]:
    for op in [op for op in signatures.SIGNATURES if op not in lacks(adapter)]:
        yield Check(op, partial(signatures.check_signature, adapter, op))


def _value_checks(adapter: Adapter) -> Iterator[Check]:
    for op in OPS:
        if op not in adapter.ops:
            continue
        for device in adapter.devices:
            prefix = op if device == adapter.devices[0] else f"{op}-{device}"
            for implementation in implementations(adapter, op):
                named = tuple(adapter.implementations.get(op, ()))
                for dtype, case in product(adapter.dtypes, cases(op)):
                    if is_asked(adapter, dtype, case.name, implementation, named):
                        name = f"{prefix}-{implementation}-{dtype}-{case.name}"
                        yield Check(name, partial(check_case, adapter, case, implementation, dtype, device))


def _sharing_checks(adapter: Adapter) -> Iterator[Check]:
    for op in OPS:
        for implementation in named_implementations(adapter, op) if op in adapter.ops else ():
            for case in sharing_cases(op):
                run = partial(check_case, adapter, case, implementation, "float64", adapter.devices[0])
                yield Check(f"{op}-{implementation}-{case.name}", run)


def _step_checks(adapter: Adapter) -> Iterator[Check]:
    if "plstm_1d_step" in lacks(adapter):
        return
    for name in steps.CASES:
        yield Check(f"plstm_1d_step-chain-{name}", partial(steps.check_chain, adapter, name))
        for dtype in adapter.dtypes:
            yield Check(f"plstm_1d_step-{dtype}-{name}", partial(check_step, adapter, name, dtype))
    for argument in PLSTM_1D_STEP:
        yield Check(f"plstm_1d_step-rank_of_{argument}", partial(steps.check_bad_argument, adapter, argument))


LAYOUT_CASES = {
    "plstm_1d": ("state_tracking", "packed"),
    "plstm_2d": ("full_state_tracking", "P_odd_sides", "L_odd_sides"),
    "plstm_2d_oriented": ("full_state_tracking", "P_odd_sides", "L_odd_sides"),
    "plstm_graph": ("dense_states",),
}


def _layout_checks(adapter: Adapter) -> Iterator[Check]:
    for op, chosen in LAYOUT_CASES.items():
        for implementation in named_implementations(adapter, op) if op in adapter.ops else ():
            for case in cases(op):
                if case.name in chosen:
                    run = partial(check_layout, adapter, case, implementation, adapter.devices[0])
                    yield Check(f"{op}-{implementation}-{case.name}", run)


def _composition_checks(adapter: Adapter) -> Iterator[Check]:
    for op, cut in composition.CUTS.items():
        for implementation in named_implementations(adapter, op) if op in adapter.ops else ():
            for name in cut.cases:
                run = partial(cut.check, adapter, name, implementation)
                yield Check(f"{op}-{implementation}-{name}", run)


def _long_range_checks(adapter: Adapter) -> Iterator[Check]:
    for op, found in long_range.CHECKS.items():
        for implementation in named_implementations(adapter, op) if op in adapter.ops else ():
            for name, check in found.items():
                yield Check(f"{op}-{implementation}-{name}", partial(check, adapter, implementation))


def _error_checks(adapter: Adapter) -> Iterator[Check]:
    j = SCALAR if "state_tracking" in lacks(adapter) else STATE_TRACKING
    for op in OPS:
        for implementation in implementations(adapter, op) if op in adapter.ops else ():
            for case in errors.error_cases(op, j):
                run = partial(errors.check_error, adapter, case, implementation)
                yield Check(f"{op}-{implementation}-{case.name}", run)


def _refusal_checks(adapter: Adapter) -> Iterator[Check]:
    yield from (Check(name, run) for name, run in refusals(adapter, implementations))


def _isolation_checks(adapter: Adapter) -> Iterator[Check]:
    for op in OPS:
        for implementation in named_implementations(adapter, op) if op in adapter.ops else ():
            for spoilt in isolation.spoilt_cases(op):
                run = partial(isolation.check_isolation, adapter, spoilt, implementation)
                yield Check(f"{op}-{implementation}-{spoilt.case.name}", run)


def _golden_op_checks(adapter: Adapter) -> Iterator[Check]:
    for kind, op in GOLDEN_OPS.items():
        for name in golden.names(kind) if op not in lacks(adapter) else ():
            for implementation in implementations(adapter, op):
                yield Check(f"{name}-{implementation}", partial(check_golden_op, adapter, name, implementation))


def _golden_module_checks(adapter: Adapter) -> Iterator[Check]:
    for kind in adapter.golden_kinds:
        for name in golden.names(kind):
            yield Check(name, partial(_check_golden_module, adapter, name))


def _check_golden_module(adapter: Adapter, name: str) -> None:
    case = golden.load(name)
    compare_golden(adapter.run_golden(case), case)
