"""Layers and models against the reference: outputs in every dtype, derivatives in float64."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np

from plstm_config import LongRangeTransitionLayerConfig, pLSTMGraphEdgeLayerConfig, pLSTMGraphLayerConfig
from plstm_config.base import Config
from plstm_config.blocks import ResidualModuleConfig
from plstm_config.gates import GateLayerConfig
from plstm_config.interaction import InteractionLayerConfig

from .. import reference
from ..finite_differences import directional_derivative
from ..tolerances import assert_close, tolerance
from . import truth
from .adapter import Adapter, Array, ModuleCall, Result
from .compiled import compiles, module_dtypes
from .lacks import lacks
from .layer_cases import layer_cases
from .model_cases import model_cases
from .module_draws import ModuleCase, seeded, with_dtype

GROUPS = {"layers": layer_cases, "models": model_cases}
# Rounding inside of a whole module is far from the two dtypes' own; float16 is the business of the ops.
DTYPES = ("float64", "float32", "bfloat16")
_BETWEEN_OTHERS = (InteractionLayerConfig, pLSTMGraphLayerConfig, pLSTMGraphEdgeLayerConfig, ResidualModuleConfig)
# Norms of few features are steep where these are small, so the step is small, too.
STEP = 1e-6


def case_named(group: str, name: str) -> ModuleCase:
    """A case of "layers" or "models" by its name."""
    (found,) = (case for case in GROUPS[group]() if case.name == name)
    return found


def is_module(adapter: Adapter, config: Config) -> bool:
    """Whether a backend has modules of this config's class."""
    return type(config) in adapter.module_classes


def call(case: ModuleCase, dtype: str = "float64", device: str = "cpu", **more: Any) -> ModuleCall:
    """The call that asks a backend for a case, everything rounded to the dtype it computes in.

    Args:
        case: the case.
        dtype: of the module and its input.
        device: where to run it.
        **more: further fields of the call.

    Returns:
        The call.
    """
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
    """Layers and blocks answer in the dtype of their input, models and the parts of layers in that of their config.

    Gates stay in float32 or higher, since they are multiplied up.
    """
    own = str(getattr(call.config, "dtype", call.dtype))
    if isinstance(call.config, GateLayerConfig | LongRangeTransitionLayerConfig):
        return truth.state_dtype(own)
    return call.dtype if isinstance(call.config, _BETWEEN_OTHERS) else own


@cache
def expected(group: str, name: str, dtype: str) -> Result:
    """The reference's answer to a case on its rounded numbers, computed once per session."""
    return evaluate(call(case_named(group, name), dtype))


def with_directions(asked: ModuleCall, seed: str, output: Array) -> ModuleCall:
    """The call that also asks for the derivative along random directions of every input and parameter.

    Args:
        asked: the call.
        seed: what the random numbers follow from.
        output: in whose shape [...] the cotangent is.

    Returns:
        The call.
    """
    random = seeded(f"{seed}/directions")
    cotangent = random.standard_normal(output.shape)
    arrays = {name: array for name, array in asked.inputs.items() if _is_float(array)}
    arrays |= {f"param/{name}": array for name, array in asked.parameters.items()}
    directions = {name: random.standard_normal(array.shape) for name, array in arrays.items()}
    return replace(asked, cotangent=cotangent, directions=directions)


def check_output(adapter: Adapter, group: str, name: str, dtype: str, device: str) -> None:
    """Compare a module's output with the reference."""
    asked, truth_ = call(case_named(group, name), dtype, device), expected(group, name, dtype)
    compare_output(adapter.run_module(asked), truth_, dtype)


def compare_output(result: Result, expected: Result, dtype: str, label: str = "output") -> None:
    """Compare output and its dtype.

    Args:
        result: what a backend gave.
        expected: what the reference gives.
        dtype: in which the backend computed.
        label: for the message.

    Raises:
        AssertionError: if they differ.
    """
    if result.output_dtype != expected.output_dtype:
        raise AssertionError(f"{label}: expected dtype {expected.output_dtype}, got {result.output_dtype}")
    assert_close(result.output, expected.output, dtype, "module", label)


def check_derivative(adapter: Adapter, group: str, name: str, device: str) -> None:
    """Compare the derivative along random directions of all inputs and parameters together, and the output with it."""
    truth_ = expected(group, name, "float64")
    asked = with_directions(call(case_named(group, name), device=device), name, truth_.output)
    result = adapter.run_module(asked)
    compare_output(result, truth_, "float64")
    compare_derivative(adapter, asked, result)


def compare_derivative(adapter: Adapter, asked: ModuleCall, result: Result) -> None:
    """Compare the derivative, unless the backend has none; if it is wrong, find out along which directions."""
    if "gradients" in lacks(adapter):
        return
    size = asked.cotangent.size if asked.cotangent is not None else 1
    if not _differs(result.derivative, _derivative(asked), size):
        return
    wrong = []
    for name, direction in asked.directions.items():
        alone = replace(asked, directions={name: direction})
        found, wanted = adapter.run_module(alone).derivative, _derivative(alone)
        if _differs(found, wanted, size):
            wrong.append(f"{name}: expected {wanted:.12g}, got {found!r}")
    raise AssertionError(f"derivative along {'; '.join(wrong) or 'all directions together'}")


def checks(adapter: Adapter, group: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """The checks of a group by name: the output in every dtype, and the derivative with that in float64."""
    for case in GROUPS[group]():
        if not is_module(adapter, case.config):
            continue
        for device in adapter.devices:
            suffix = "" if device == adapter.devices[0] else f"-{device}"
            for dtype in module_dtypes(adapter, DTYPES):
                if not (dtype == "float64" and compiles(adapter)):
                    yield (
                        f"{case.name}-{dtype}{suffix}",
                        partial(check_output, adapter, group, case.name, dtype, device),
                    )
            yield f"{case.name}-derivative{suffix}", partial(check_derivative, adapter, group, case.name, device)


def _forward(call: ModuleCall) -> tuple[Array, Mapping[str, Array]]:
    has_cache = call.config.kind == "sequence"
    if call.method == "step":
        (x,) = call.inputs.values()
        return reference.step(call.config, call.parameters, x, call.keywords.get("cache"))
    run = partial(reference.apply, call.config, call.parameters, *call.inputs.values())
    return run(**{**call.keywords, "return_cache": True}) if has_cache else (run(**call.keywords), {})


def _is_float(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind == "f"


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


def _differs(found: float | None, reference: float, size: int) -> bool:
    """Whether a derivative is off, by its own size or by that which so many random terms have by chance."""
    scale = max(1.0, np.sqrt(size), abs(reference))
    error = np.nan if found is None else (found - reference) / scale
    return not abs(error) <= tolerance("float64", "derivative")
