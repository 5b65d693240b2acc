"""Layers and models against the reference: outputs in every dtype, derivatives in float64."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from plstm_config import LongRangeTransitionLayerConfig
from plstm_config.base import Config
from plstm_config.gates import GateLayerConfig

from .. import reference
from ..finite_differences import directional_derivative
from ..tolerances import assert_close, rms
from . import truth
from .adapter import Adapter, Array, ModuleCall, Result
from .layer_cases import layer_cases
from .model_cases import model_cases
from .module_draws import ModuleCase, seeded, with_dtype

GROUPS = {"layers": layer_cases, "models": model_cases}
# Rounding inside of a whole module is far from the two dtypes' own; float16 is the business of the ops.
DTYPES = ("float64", "float32", "bfloat16")
# Small steps: the deepest models are steep.
STEP = 2e-4


def case_named(group: str, name: str) -> ModuleCase:
    """A case of "layers" or "models" by its name."""
    (found,) = (case for case in GROUPS[group]() if case.name == name)
    return found


def is_module(adapter: Adapter, config: Config) -> bool:
    """Whether a backend has modules of this config's class."""
    return type(config) in adapter.module_classes


def call(case: ModuleCase, dtype: str = "float64", device: str = "cpu", **more: Any) -> ModuleCall:
    """The call that asks a backend for a case, everything rounded to the dtype it computes in."""
    return ModuleCall(
        config=with_dtype(case.config, dtype),
        parameters={name: truth.round_to(array, dtype) for name, array in case.parameters.items()},
        inputs={name: truth.rounded(value, dtype) for name, value in case.inputs.items()},
        keywords=case.keywords,
        dtype=dtype,
        device=device,
        **more,
    )


def evaluate(call: ModuleCall) -> Result:
    """Answer a call with the reference; derivatives by central differences."""
    output, after = _forward(call)
    wants_cache = call.method == "step" or call.keywords.get("return_cache")
    return Result(
        output=output,
        output_dtype=output_dtype(call),
        state_dtype=truth.state_dtype(call.dtype) if wants_cache and after else None,
        cache=after if wants_cache else None,
        derivative=None if call.cotangent is None else _derivative(call),
    )


def output_dtype(call: ModuleCall) -> str:
    """Outputs come in the dtype of the config; gates stay in float32 or higher, since they are multiplied up."""
    wide = isinstance(call.config, GateLayerConfig | LongRangeTransitionLayerConfig)
    return truth.state_dtype(call.dtype) if wide else call.dtype


@cache
def expected(group: str, name: str, dtype: str) -> Result:
    """The reference's answer to a case on its rounded numbers, computed once per session."""
    return evaluate(call(case_named(group, name), dtype))


@cache
def expected_derivative(group: str, name: str, chosen: str | None = None) -> float:
    """The reference's derivative of a case along all directions, or along one of them alone."""
    return evaluate(derivative_call(case_named(group, name), expected(group, name, "float64"), chosen)).derivative or 0.0


def derivative_call(case: ModuleCase, answer: Result, chosen: str | None = None, device: str = "cpu") -> ModuleCall:
    """The call that asks for a derivative along random directions of every input and parameter, or of one alone."""
    random = seeded(f"{case.name}/directions")
    cotangent = random.standard_normal(answer.output.shape)
    arrays = _differentiable(case.inputs, case.parameters)
    directions = {name: random.standard_normal(array.shape) for name, array in arrays.items()}
    if chosen is not None:
        directions = {chosen: directions[chosen]}
    return replace(call(case, device=device), cotangent=cotangent, directions=directions)


def check_output(adapter: Adapter, group: str, name: str, dtype: str, device: str) -> None:
    """Compare a module's output with the reference."""
    asked, truth_ = call(case_named(group, name), dtype, device), expected(group, name, dtype)
    compare_output(adapter.run_module(asked), truth_, dtype)


def compare_output(result: Result, expected: Result, dtype: str, label: str = "output") -> None:
    """Compare output and its dtype."""
    if result.output_dtype != expected.output_dtype:
        raise AssertionError(f"{label}: expected dtype {expected.output_dtype}, got {result.output_dtype}")
    assert_close(result.output, expected.output, dtype, "module", label)


def check_derivative(adapter: Adapter, group: str, name: str, device: str) -> None:
    """Compare the derivative along a random direction of all inputs and parameters; on failure, find out of which."""
    case, answer = case_named(group, name), expected(group, name, "float64")
    asked = derivative_call(case, answer, device=device)
    scale = _scale(asked)
    if _differs(adapter.run_module(asked).derivative, expected_derivative(group, name), scale):
        wrong = []
        for chosen in asked.directions:
            alone = adapter.run_module(derivative_call(case, answer, chosen, device)).derivative
            if _differs(alone, expected_derivative(group, name, chosen), scale):
                wrong.append(f"{chosen}: expected {expected_derivative(group, name, chosen):.12g}, got {alone!r}")
        raise AssertionError(f"{name}: derivative along {'; '.join(wrong) or 'all directions together'}")


def checks(adapter: Adapter, group: str) -> Iterator[tuple[str, Any]]:
    """Names and arguments of the checks of a group: `check_output` with a dtype, `check_derivative` without."""
    for case in GROUPS[group]():
        if not is_module(adapter, case.config):
            continue
        for device in adapter.devices:
            suffix = "" if device == adapter.devices[0] else f"-{device}"
            for dtype in DTYPES:
                if dtype in adapter.dtypes:
                    yield f"{case.name}-{dtype}{suffix}", (check_output, group, case.name, dtype, device)
            yield f"{case.name}-derivative{suffix}", (check_derivative, group, case.name, device)


def _forward(call: ModuleCall) -> tuple[Array, Mapping[str, Array]]:
    keywords = {**call.keywords, "return_cache": True}
    if call.method == "step":
        return reference.step(call.config, call.parameters, *call.inputs.values(), call.keywords.get("cache"))
    output, after = reference.apply(call.config, call.parameters, *call.inputs.values(), **keywords)
    return output, after


def _differentiable(inputs: Mapping[str, Any], parameters: Mapping[str, Array]) -> dict[str, Array]:
    floats = {name: array for name, array in inputs.items() if isinstance(array, np.ndarray) and array.dtype.kind == "f"}
    return floats | {f"param/{name}": array for name, array in parameters.items()}


def _derivative(call: ModuleCall) -> float:
    names = list(call.directions)

    def weighted(distance: Array) -> float:
        def moved(name: str, array: Any) -> Any:
            return array + distance * call.directions[name] if name in names else array

        inputs = {name: moved(name, array) for name, array in call.inputs.items()}
        parameters = {name: moved(f"param/{name}", array) for name, array in call.parameters.items()}
        output, _ = _forward(replace(call, inputs=inputs, parameters=parameters))
        return float(np.sum(output * call.cotangent))

    return directional_derivative(weighted, np.zeros(()), np.ones(()), STEP)


def _scale(call: ModuleCall) -> float:
    """The size that a derivative of this call has by chance: that of as many random terms as there are outputs."""
    size = 1 if call.cotangent is None else call.cotangent.size
    return max(1.0, float(np.sqrt(size)))


def _differs(found: float | None, reference: float, scale: float) -> bool:
    try:
        assert_close((found or 0.0) / scale - reference / scale if found is not None else np.nan, 0.0, kind="derivative")
    except AssertionError:
        return True
    return False
