"""The reference as a backend: what the suite itself is tested with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from plstm_config import parameter_tree
from plstm_config.folder import read_folder, write_folder
from plstm_config.options import check_implementation, check_size

from .. import reference
from ..golden import GoldenCase
from ..version import __version__
from . import modules, truth
from .adapter import ModuleCall, OpCall, Result, Value

IMPLEMENTATIONS = ("recurrent", "auto")


def plstm_1d(
    query: Any,
    key: Any,
    value: Any,
    source: Any,
    transition: Any,
    mark: Any,
    direct: Any,
    *,
    initial_state: Any = None,
    return_last_state: bool = False,
    scale: float | None = None,
    implementation: str = "auto",
    chunk_size: int | None = None,
    cu_seqlens: Any = None,
) -> Any:
    """The op with the signature of a backend; see `reference.plstm_1d`."""
    check_implementation(implementation, IMPLEMENTATIONS)
    check_size("chunk_size", chunk_size)
    options = {"initial_state": initial_state, "return_last_state": return_last_state, "scale": scale}
    arrays = (query, key, value, source, transition, mark, direct)
    return reference.plstm_1d(*arrays, **options, cu_seqlens=cu_seqlens)


def plstm_1d_step(
    query: Any,
    key: Any,
    value: Any,
    source: Any,
    transition: Any,
    mark: Any,
    direct: Any,
    state: Any,
    *,
    scale: float | None = None,
) -> Any:
    """The op; see `reference.plstm_1d_step`."""
    return reference.plstm_1d_step(query, key, value, source, transition, mark, direct, state, scale=scale)


def plstm_2d(
    query: Any,
    key: Any,
    value: Any,
    *,
    source_r: Any,
    source_d: Any,
    transition_rl: Any,
    transition_du: Any,
    transition_dl: Any = None,
    transition_ru: Any = None,
    mark_l: Any,
    mark_u: Any = None,
    direct: Any,
    mode: str | None = None,
    initial_state: Any = None,
    return_last_state: bool = False,
    scale: float | None = None,
    implementation: str = "auto",
    block_size: int | None = None,
) -> Any:
    """The op with the signature of a backend; see `reference.plstm_2d`."""
    check_implementation(implementation, IMPLEMENTATIONS)
    check_size("block_size", block_size)
    gates = {"source_r": source_r, "source_d": source_d, "mark_l": mark_l, "mark_u": mark_u, "direct": direct}
    gates |= {"transition_rl": transition_rl, "transition_du": transition_du}
    gates |= {"transition_dl": transition_dl, "transition_ru": transition_ru}
    options = {"initial_state": initial_state, "return_last_state": return_last_state, "scale": scale, "mode": mode}
    return reference.plstm_2d(query, key, value, **gates, **options)


def plstm_2d_oriented(
    query: Any,
    key: Any,
    value: Any,
    *,
    source_r: Any,
    source_d: Any,
    transition_rl: Any,
    transition_du: Any,
    transition_dl: Any = None,
    transition_ru: Any = None,
    mark_l: Any,
    mark_u: Any = None,
    direct: Any,
    mode: str | None = None,
    initial_state: Any = None,
    return_last_state: bool = False,
    scale: float | None = None,
    implementation: str = "auto",
    block_size: int | None = None,
) -> Any:
    """The op with the signature of a backend; see `reference.plstm_2d_oriented`."""
    check_implementation(implementation, IMPLEMENTATIONS)
    check_size("block_size", block_size)
    gates = {"source_r": source_r, "source_d": source_d, "mark_l": mark_l, "mark_u": mark_u, "direct": direct}
    gates |= {"transition_rl": transition_rl, "transition_du": transition_du}
    gates |= {"transition_dl": transition_dl, "transition_ru": transition_ru}
    options = {"initial_state": initial_state, "return_last_state": return_last_state, "scale": scale, "mode": mode}
    return reference.plstm_2d_oriented(query, key, value, **gates, **options)


def plstm_graph(
    query: Any,
    key: Any,
    value: Any,
    source: Any,
    transition: Any,
    mark: Any,
    direct: Any,
    topology: Any,
    *,
    initial_state: Any = None,
    return_last_state: bool = False,
    scale: float | None = None,
    implementation: str = "auto",
) -> Any:
    """The op with the signature of a backend; see `reference.plstm_graph`."""
    check_implementation(implementation, IMPLEMENTATIONS)
    arrays = (query, key, value, source, transition, mark, direct)
    options = {"initial_state": initial_state, "return_last_state": return_last_state, "scale": scale}
    return reference.plstm_graph(*arrays, topology, **options)


class NumpyAdapter:
    """Adapter of the reference; results are rounded to the dtype asked for, so the tolerances mean something."""

    name: str = "numpy"
    ops: Mapping[str, Callable[..., Any]] = {
        "plstm_1d": plstm_1d,
        "plstm_1d_step": plstm_1d_step,
        "plstm_2d": plstm_2d,
        "plstm_2d_oriented": plstm_2d_oriented,
        "plstm_graph": plstm_graph,
    }
    implementations: Mapping[str, Sequence[str]] = dict.fromkeys(ops, ("recurrent",))
    dtypes: Sequence[str] = ("float64", "float32", "bfloat16", "float16")
    devices: Sequence[str] = ("cpu",)
    module_classes: Sequence[type] = reference.module_classes()
    golden_kinds: Sequence[str] = ()

    def run_op(self, call: OpCall) -> Result:
        """Run the op, then the reference's reverse pass."""
        result = self.forward(call)
        gradients = self.gradients(call) if call.cotangent is not None else {}
        output, state = result if call.returns_state else (result, None)
        state_dtype = truth.state_dtype(call.dtype)
        return Result(
            output=truth.round_to(output, call.dtype),
            last_state=truth.rounded(state, state_dtype),
            gradients={name: truth.rounded(gradient, call.dtype) for name, gradient in gradients.items()},
            output_dtype=call.dtype,
            state_dtype=None if state is None else state_dtype,
        )

    def forward(self, call: OpCall) -> Any:
        """What the op returns."""
        return self.ops[call.op](**truth.with_same(call.arguments, call.same), **call.keywords)

    def gradients(self, call: OpCall) -> Mapping[str, Value]:
        """Gradients by argument name."""
        return truth.evaluate(call).gradients

    def run_module(self, call: ModuleCall) -> Result:
        """Apply the reference's formulas; the derivative by central differences."""
        with np.errstate(invalid="ignore"):  # some calls hold infinities
            result = modules.evaluate(call)
        cache = result.cache
        if cache is not None:
            cache = {name: truth.round_to(array, _cache_dtype(name, call.dtype)) for name, array in cache.items()}
        return replace(result, output=truth.round_to(result.output, result.output_dtype), cache=cache)

    def run_golden(self, case: GoldenCase) -> Result:
        """The reference has no gradients of whole modules; its own tests compare it along directions."""
        raise ValueError(f"case: expected no modules, since golden_kinds is empty, got {case.name!r}")

    def init(self, call: ModuleCall, seed: int) -> Mapping[str, Any]:
        """Draw the parameters as the reference does."""
        return reference.init(call.config, np.random.default_rng(seed))

    def save(self, config: Any, parameters: Mapping[str, Any], folder: Path) -> None:
        """Write a folder with the arrays in the dtypes that the config says; see `Adapter.save`."""
        dtypes = {name: parameter.dtype for name, parameter in parameter_tree(config).items()}
        arrays = {name: np.asarray(array, dtypes[name]) for name, array in parameters.items()}
        write_folder(folder, config, arrays, package="plstm-testing", version=__version__)

    def load(self, folder: Path) -> tuple[Any, Mapping[str, Any]]:
        """Read a folder."""
        config, arrays = read_folder(folder)
        return config, {name: np.asarray(array, np.float64) for name, array in arrays.items()}


def _cache_dtype(name: str, dtype: str) -> str:
    return truth.state_dtype(dtype) if name.endswith("state") else dtype


adapter = NumpyAdapter()
