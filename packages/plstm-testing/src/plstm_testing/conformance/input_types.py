"""Modules asked in another dtype than that of their config: what fits between modules of others.

Layers and blocks answer in the dtype of their input, and keep a wide residual stream wide; their parts and whole models
answer in the dtype of their config.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from ..tolerances import assert_close
from .adapter import Adapter, Array, ModuleCall
from .compiled import compiles
from .module_draws import with_dtype
from .modules import call, case_named, compare_output, evaluate, is_module

# Dtypes of config and input: a wide stream through narrow modules, and the other way round.
PAIRS = (("bfloat16", "float32"), ("float32", "bfloat16"))
TOLERANCE = "bfloat16"
CASES = {
    "layers": (
        *("1d_scalar", "1d_no_passthrough", "1d_identity_norm", "1d_bidirectional_length_7"),
        *(
            "2d_fused_P_scalar",
            "2d_list_D_L_0",
            "graph_P_own_outgoing",
            "graph_edge_P_shared_outgoing",
            "graph_P_sizes",
        ),
        *("linear", "rmsnorm_0", "source_identity"),
    ),
    "models": (
        *("pre_up_plain", "pre_up_no_skip", "pre_up_identity", "post_up_plain", "post_up_scaled", "transformer"),
        *("vision_block_PD", "graph_block_post_up", "graph_edge_block_pre_up", "stack_pre_up", "stack_scanned"),
        *("vision_mean", "graph_model_mean"),
    ),
}
STREAMS = ("pre_up_plain", "post_up_plain", "post_up_identity", "transformer", "vision_block_PD", "stack_post_up")
_LARGE = 1024.0  # of the stream, against branches whose norms make them small


def check_answer(adapter: Adapter, group: str, name: str, dtype: str, input_dtype: str) -> None:
    """Compare output and its dtype.

    Args:
        adapter: the backend.
        group: "layers" or "models".
        name: of the case.
        dtype: of the config.
        input_dtype: of the input.
    """
    asked = mixed(group, name, dtype, input_dtype)
    compare_output(adapter.run_module(asked), evaluate(asked), TOLERANCE)


def check_step(adapter: Adapter, dtype: str, input_dtype: str) -> None:
    """Compare the same of a step.

    Args:
        adapter: the backend.
        dtype: of the config.
        input_dtype: of the input.
    """
    whole = mixed("layers", "1d_scalar", dtype, input_dtype)
    asked = replace(whole, inputs={"x": whole.inputs["x"][:, 0]}, method="step")
    compare_output(adapter.run_module(asked), evaluate(asked), TOLERANCE)


def check_stream(adapter: Adapter, name: str) -> None:
    """What narrow blocks add to a wide stream of large numbers, which would lose it if they rounded the stream."""
    asked = mixed("models", name, *PAIRS[0], scale=_LARGE)
    x: Array = asked.inputs["x"]
    found, expected = adapter.run_module(asked), evaluate(asked)
    compare_output(found, expected, TOLERANCE)
    assert_close(found.output - x, expected.output - x, TOLERANCE, "module", "what is added to the stream")


def mixed(group: str, name: str, dtype: str, input_dtype: str, scale: float = 1.0) -> ModuleCall:
    """A case whose module computes in one dtype and is asked in another.

    Args:
        group: "layers" or "models".
        name: of the case.
        dtype: of the config.
        input_dtype: of the input.
        scale: of the input.

    Returns:
        The call.
    """
    case = case_named(group, name)
    inputs = {
        key: scale * a if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for key, a in case.inputs.items()
    }
    parameters = call(case, dtype).parameters
    return replace(
        call(replace(case, inputs=inputs), input_dtype), config=with_dtype(case.config, dtype), parameters=parameters
    )


def checks(adapter: Adapter) -> Iterator[tuple[str, Callable[[], None]]]:
    """The checks by name; none of a backend that has only one of the dtypes."""
    pairs = [pair for pair in PAIRS if set(pair) <= set(adapter.dtypes)]
    for dtype, input_dtype in pairs[:1] if compiles(adapter) else pairs:
        suffix = f"{dtype}-of-{input_dtype}"
        for group, names in CASES.items():
            for name in names:
                if is_module(adapter, case_named(group, name).config):
                    yield f"{name}-{suffix}", partial(check_answer, adapter, group, name, dtype, input_dtype)
        if is_module(adapter, case_named("layers", "1d_scalar").config):
            yield f"1d_scalar-step-{suffix}", partial(check_step, adapter, dtype, input_dtype)
    for name in STREAMS if pairs else ():
        if is_module(adapter, case_named("models", name).config):
            yield f"{name}-stream", partial(check_stream, adapter, name)
