"""Weights go from backend to backend and come back as they were; what reads them computes the same.

A backend joins by a line in `BACKENDS`: how it copies one folder into another through a module of its own, and what its
module in a folder makes of an input.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.numpy import load_file

import plstm_jax
import plstm_linen
import plstm_nnx
import plstm_torch
from plstm_config.folder import read_config
from plstm_config.topology import DagTopology
from plstm_testing.conformance.modules import call, case_named
from plstm_testing.tolerances import assert_close


class Backend(NamedTuple):
    """How a backend copies a folder, and how it runs the module in one."""

    copy: Callable[[Path, Path], None]
    run: Callable[..., Any]


def copy_torch(source, target):
    plstm_torch.save_pretrained(plstm_torch.from_pretrained(source), target)


def run_torch(folder, *inputs, **keywords):
    model = plstm_torch.from_pretrained(folder)
    given = [torch.from_numpy(one) if isinstance(one, np.ndarray) else one for one in inputs]
    dtype = getattr(torch, model.config.dtype)
    given = [one.to(dtype) if isinstance(one, torch.Tensor) and one.is_floating_point() else one for one in given]
    with torch.no_grad():
        return model(*given, **keywords).double().numpy()


def copy_nnx(source, target, *, scan_blocks):
    plstm_nnx.save_pretrained(plstm_nnx.from_pretrained(source, scan_blocks=scan_blocks), target)


def run_nnx(folder, *inputs, **keywords):
    graph, arrays = nnx.split(plstm_nnx.from_pretrained(folder))
    return jitted(lambda arrays, *given: nnx.merge(graph, arrays)(*given), arrays, inputs, keywords, folder)


def copy_linen(source, target):
    plstm_linen.save_pretrained(*plstm_linen.from_pretrained(source), target)


def run_linen(folder, *inputs, **keywords):
    module, variables = plstm_linen.from_pretrained(folder)
    return jitted(module.apply, variables, inputs, keywords, folder)


def copy_jax(source, target):
    plstm_jax.save(*plstm_jax.load(source), target)


def run_jax(folder, *inputs, **keywords):
    config, params = plstm_jax.load(folder)
    return jitted(partial(plstm_jax.apply, config), params, inputs, keywords, folder)


def jitted(function, arrays, inputs, keywords, folder):
    """Call with graphs and the like as parts of the program."""
    dtype, traced = read_config(folder).dtype, [isinstance(one, np.ndarray) and one.dtype.kind == "f" for one in inputs]
    given = [jnp.asarray(one, dtype) if is_float else one for one, is_float in zip(inputs, traced, strict=True)]

    def run(arrays, floats):
        rest = iter(floats)
        return function(arrays, *(next(rest) if t else one for one, t in zip(given, traced, strict=True)), **keywords)

    floats = [one for one, is_float in zip(given, traced, strict=True) if is_float]
    return np.asarray(jax.jit(run)(arrays, floats), np.float64)


BACKENDS = {
    "torch": Backend(copy_torch, run_torch),
    "nnx": Backend(partial(copy_nnx, scan_blocks=False), run_nnx),
    "nnx, scanned": Backend(partial(copy_nnx, scan_blocks=True), run_nnx),
    "linen": Backend(copy_linen, run_linen),
    "jax": Backend(copy_jax, run_jax),
}
# one of each kind of input, and of what layouts differ by: tied heads, stacks, convolutions, orientations, edges
CASES = ("language_tied", "stack_post_up", "vision_corners", "graph_model_edges")
DTYPES = ("float64", "float32", "bfloat16")


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_weights_go_round_all_backends(name, dtype, tmp_path):
    asked = call(case_named("models", name), dtype)
    names = list(BACKENDS)
    torch.manual_seed(0)
    plstm_torch.save_pretrained(plstm_torch.build(asked.config), tmp_path / "start")
    start = load_file(tmp_path / "start" / "model.safetensors")
    inputs = [one.with_mode("P") if isinstance(one, DagTopology) else one for one in asked.inputs.values()]
    expected = run_torch(tmp_path / "start", *inputs, **asked.keywords)
    last = tmp_path / "start"
    for place, backend in enumerate([*names[1:], names[0]]):
        folder = tmp_path / str(place)
        BACKENDS[backend].copy(last, folder)
        assert read_config(folder) == asked.config
        arrays = load_file(folder / "model.safetensors")
        assert arrays.keys() == start.keys()
        for key, array in start.items():
            assert (arrays[key].dtype, arrays[key].shape) == (array.dtype, array.shape)
            assert arrays[key].tobytes() == array.tobytes()
        found = BACKENDS[backend].run(folder, *inputs, **asked.keywords)
        assert_close(found, expected, dtype, "module", backend)
        last = folder
