"""Time the jitted JAX ops beside the torch ops: medians in milliseconds, as a table and as JSON.

python benchmarks/jax_ops.py --out jax_ops.json

The two take turns on the same arguments, so that what else the machine does falls on both; beside the time on the clock
stands the processor time, which other work on the machine changes less. For JAX also the seconds to compile the
gradient and the number of equations of its program.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from plstm_graph import CASES as GRAPHS
from plstm_graph import draw_topology

from plstm_config.shapes import DIRECTED, PLSTM_1D, PLSTM_2D_ORIENTED, PLSTM_GRAPH
from plstm_jax import ops as jax_ops
from plstm_torch import ops as torch_ops

SEQUENCE = {"B": 8, "DK": 32, "DV": 32}
STATE_TRACKING = {"JT": 4, "JV": 4, "JO": 4}
GRID = {"O": 4, "DK": 64, "DV": 64}
CASES: dict[str, tuple[str, str, dict[str, int]]] = {
    "1d-1024": ("plstm_1d", "", {"T": 1024, **SEQUENCE}),
    "1d-16384": ("plstm_1d", "", {"T": 16384, **SEQUENCE}),
    "1d-J4-1024": ("plstm_1d", "", {"T": 1024, **SEQUENCE, **STATE_TRACKING}),
    "1d-J4-16384": ("plstm_1d", "", {"T": 16384, **SEQUENCE, **STATE_TRACKING}),
}
for side, batch in ((14, 24), (28, 6), (64, 3), (128, 3)):
    for mode in "DP":
        CASES[f"2d-{mode}-{side}"] = ("plstm_2d_oriented", mode, {"B": batch, "X": side, "Y": side, **GRID})
for graph, (*_, implementations) in GRAPHS.items():
    for implementation in implementations:
        CASES[f"{graph}, {implementation}"] = ("plstm_graph", implementation, {"H": 4, "DK": 24, "DV": 24})
LAYOUTS = {"plstm_1d": PLSTM_1D, "plstm_2d_oriented": PLSTM_2D_ORIENTED, "plstm_graph": PLSTM_GRAPH}

Arguments = dict[str, np.ndarray]
Function = Callable[[], Any]
Call = Callable[[Any, Mapping[str, Any]], Any]  # from the module of the ops and the arguments to the output


def draw(op: str, mode: str, sizes: Mapping[str, int]) -> Arguments:
    """Random arguments with bounded transitions; of P-mode only what it reads."""
    random = np.random.default_rng(0)
    arguments = {}
    for name, layout in LAYOUTS[op].items():
        array = random.standard_normal([sizes.get(letter, 1) for letter in layout])
        if name.startswith("transition"):
            array = 0.3 * array if op == "plstm_graph" else 0.95 * np.linalg.qr(array)[0]
        arguments[name] = array.astype(np.float32)
    if mode == "P":
        share = random.uniform(0, 1, arguments["transition_rl"].shape).astype(np.float32)
        arguments["transition_rl"] *= share
        arguments["transition_du"] *= 1 - share
        return {name: array for name, array in arguments.items() if name not in DIRECTED}
    if mode == "D":
        del arguments["transition_dl"]
    return arguments


def keywords(op: str, mode: str) -> dict[str, Any]:
    return {"mode": "P"} if op == "plstm_2d_oriented" and mode == "P" else {}


def torch_functions(call: Call, arguments: Arguments, weight: np.ndarray) -> tuple[Function, Function]:
    tensors = {name: torch.from_numpy(array).requires_grad_() for name, array in arguments.items()}
    cotangent = torch.from_numpy(weight)

    def inference() -> None:
        with torch.no_grad():
            call(torch_ops, tensors)

    def training() -> None:
        torch.autograd.grad(call(torch_ops, tensors), list(tensors.values()), cotangent)

    return inference, training


def jax_functions(call: Call, arguments: Arguments, weight: np.ndarray) -> tuple[Function, Function, dict[str, Any]]:
    def forward(arrays: dict[str, Any]) -> Any:
        return call(jax_ops, arrays)

    def gradients(arrays: dict[str, Any], cotangent: Any) -> Any:
        output, pull_back = jax.vjp(forward, arrays)
        return output, pull_back(cotangent)[0]

    arrays = {name: jnp.asarray(array) for name, array in arguments.items()}
    cotangent = jnp.asarray(weight)
    inference = jax.jit(forward)
    traced = jax.jit(gradients).trace(arrays, cotangent)
    start = time.perf_counter()
    training = traced.lower().compile()
    about = {"compile_seconds": time.perf_counter() - start, "equations": equations(traced.jaxpr.jaxpr)}
    return (
        lambda: jax.block_until_ready(inference(arrays)),
        lambda: jax.block_until_ready(training(arrays, cotangent)),
        about,
    )


def equations(jaxpr: Any) -> int:
    """Number of equations of a program, those of its loops' bodies counted once."""
    inner = [value for equation in jaxpr.eqns for value in equation.params.values()]
    bodies = [x for value in inner for x in (value if isinstance(value, tuple | list) else [value])]
    return len(jaxpr.eqns) + sum(equations(getattr(x, "jaxpr", x)) for x in bodies if hasattr(x, "eqns"))


def milliseconds(functions: Mapping[str, Function], seconds: float) -> dict[str, list[tuple[float, float]]]:
    """Times of each function on the clock and of the processor, called in turns after two to warm up."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    began = time.perf_counter()
    for function in functions.values():
        function()
        function()
    while time.perf_counter() - began < seconds or len(next(iter(times.values()))) < 5:
        for name, function in functions.items():
            start = time.perf_counter(), time.process_time()
            function()
            times[name].append((1000 * (time.perf_counter() - start[0]), 1000 * (time.process_time() - start[1])))
    return times


def summary(times: list[tuple[float, float]]) -> dict[str, Any]:
    clock, processor = zip(*times, strict=True)
    found = {"median": statistics.median(clock), "processor": statistics.median(processor)}
    return {**found, "best": min(clock), "repeats": len(times)}


def problem(case: str) -> tuple[Call, Arguments, np.ndarray, dict[str, int]]:
    """What a case calls, its arguments, the cotangent of its output, and its sizes."""
    op, variant, sizes = CASES[case]
    if op == "plstm_graph":
        topology = draw_topology(np.random.default_rng(0), *GRAPHS[case.removesuffix(f", {variant}")][:3])
        sizes = {**sizes, "N": topology.num_nodes, "E": len(topology.edges), "L": len(topology.line_edges)}
        arguments = draw(op, "", sizes)

        def call(ops: Any, arrays: Mapping[str, Any]) -> Any:
            return ops.plstm_graph(**arrays, topology=topology, implementation=variant)
    else:
        arguments = draw(op, variant, sizes)

        def call(ops: Any, arrays: Mapping[str, Any]) -> Any:
            return getattr(ops, op)(**arrays, **keywords(op, variant))

    shape = [sizes.get(letter, 1) for letter in LAYOUTS[op]["value"]]
    if op != "plstm_graph":
        shape[-1] = sizes.get("JO", 1)
    weight = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    return call, arguments, weight, sizes


def measure(case: str, seconds: float) -> dict[str, Any]:
    call, arguments, weight, sizes = problem(case)
    (*in_torch,) = torch_functions(call, arguments, weight)
    *in_jax, about = jax_functions(call, arguments, weight)
    result: dict[str, Any] = {"case": case, "sizes": sizes, **about}
    for name, one, other in zip(("forward", "forward_backward"), in_torch, in_jax, strict=True):
        gc.collect()
        times = milliseconds({"torch": one, "jax": other}, seconds)
        result[name] = {backend: summary(found) for backend, found in times.items()}
        for kind in ("median", "processor"):
            result[name][f"ratio_{kind}"] = result[name]["jax"][kind] / result[name]["torch"][kind]
    return result


def compile_times(sides: list[int]) -> list[dict[str, Any]]:
    """Seconds to trace and compile the gradient of the oriented op, by side of the grid."""
    rows = []
    for side in sides:
        for mode in "DP":
            sizes = {"B": 2, "X": side, "Y": side, **GRID}
            arguments = draw("plstm_2d_oriented", mode, sizes)

            def loss(arrays: dict[str, Any], mode: str = mode) -> Any:
                return jnp.sum(jax_ops.plstm_2d_oriented(**arrays, **keywords("plstm_2d_oriented", mode)))

            start = time.perf_counter(), time.process_time()
            traced = jax.jit(jax.grad(loss)).trace(arguments)
            traced.lower().compile()
            seconds, processor = time.perf_counter() - start[0], time.process_time() - start[1]
            about = {"seconds": seconds, "processor": processor, "equations": equations(traced.jaxpr.jaxpr)}
            rows.append({"side": side, "mode": mode, **about})
            cells = (
                f"{seconds:5.2f} s on the clock, {processor:5.2f} s of the processor, {about['equations']} equations"
            )
            print(f"compile 2d-{mode} side {side:4}: {cells}", flush=True)
    return rows


def machine() -> dict[str, Any]:
    return {
        "machine": platform.processor() or platform.machine(),
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "jax": jax.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--cases", nargs="*", choices=list(CASES), default=list(CASES), metavar="CASE")
    parser.add_argument("--compile-sides", nargs="*", type=int, default=[7, 14, 28, 56], help="sides to compile")
    parser.add_argument("--seconds", type=float, default=6.0, help="least time per measurement")
    options = parser.parse_args()
    about = machine()
    torch.set_num_threads(about["cores"])
    print("  ".join(f"{name}: {value}" for name, value in about.items()))
    compiled = compile_times(options.compile_sides)
    print("float32, medians in milliseconds: torch, jax, ratio on the clock (of the processor)")
    rows = []
    for case in options.cases:
        row = measure(case, options.seconds)
        rows.append(row)
        cells = []
        for key in ("forward", "forward_backward"):
            found = row[key]
            medians = f"{found['torch']['median']:8.1f} {found['jax']['median']:8.1f}"
            cells.append(f"{key} {medians} {found['ratio_median']:5.2f} ({found['ratio_processor']:.2f})")
        print(f"{case:38} {'  '.join(cells)}  compiled in {row['compile_seconds']:.1f} s", flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({**about, "rows": rows, "compile": compiled}, indent=2) + "\n")


if __name__ == "__main__":
    main()
