"""Every op of every backend that is installed, against the numpy reference."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from plstm_config.topology import DagTopology
from plstm_testing.conformance import adapter as adapters
from plstm_testing.conformance import cases, checks, steps, truth
from plstm_testing.conformance.adapter import Adapter, OpCall
from plstm_testing.conformance.draws import Case
from plstm_testing.tolerances import assert_within, tolerance

PACKAGES = Path(__file__).parent.parent / "packages"
BACKENDS = {"torch": "plstm-torch", "jax": "plstm-jax"}
# JAX compiles every new shape: few sizes there, any here.
SIZES = {"torch": range(41), "jax": (0, 1, 5, 9)}
KINDS = (cases.SCALAR, cases.STATE_TRACKING, cases.WIDE_SCALAR_STATE, cases.STATE_ONLY)
FEW = 13  # nodes along a side, or in a graph
# Beyond these "auto" takes another form, which the reference takes seconds to follow: now and then only.
LONG, LARGE, DENSE = 301, (49, 53), 25


def operation_targets() -> dict[str, Callable[[np.random.Generator], None]]:
    """A target for each op and backend, by name."""
    targets: dict[str, Callable[[np.random.Generator], None]] = {}
    for name in installed():
        targets |= {f"{name}_{op}": partial(_compare, name, op) for op in cases.OPS}
        targets[f"{name}_plstm_1d_step"] = partial(_compare_step, name)
    return targets


def installed() -> list[str]:
    """Names of the backends that are there."""
    return [name for name, package in BACKENDS.items() if find_spec(package.replace("-", "_")) is not None]


@cache
def adapter_of(backend: str) -> Adapter:
    """How to call a backend."""
    return adapters.load_adapter(PACKAGES / BACKENDS[backend] / "conformance" / "adapter.py")


def _compare(backend: str, op: str, random: np.random.Generator) -> None:
    """One case: outputs, states, gradients; in narrow dtypes with the room of a whole module."""
    adapter, case = adapter_of(backend), with_shared_arrays(draw(op, random, SIZES[backend]), random)
    if backend == "torch" and random.integers(200) == 0:
        case = _draw_large(op, random)
    implementation = str(random.choice([*adapter.implementations[op], "auto"]))
    dtype = str(random.choice(["float64", "float64", *adapter.dtypes]))
    call = truth.call(case, implementation, dtype, adapter.devices[0], strided=bool(random.integers(2)))
    _hold(adapter, call, f"{implementation} {dtype} {case.name}")


def _compare_step(backend: str, random: np.random.Generator) -> None:
    """One step, in the middle of a sequence."""
    adapter = adapter_of(backend)
    case = draw("plstm_1d", random, (1, 5))
    if "cu_seqlens" in case.keywords or len(case.arguments["query"]) == 0:
        return
    dtype = str(random.choice(["float64", "float64", *adapter.dtypes]))
    whole = truth.call(case, "auto", dtype, adapter.devices[0], strided=bool(random.integers(2)))
    shape = np.shape(case.arguments["key"])[0], 3, 2, np.shape(case.arguments["transition"])[-1]
    state, weights = (truth.rounded(random.standard_normal(shape), truth.state_dtype(dtype)) for _ in range(2))
    whole = replace(whole, cotangent_state=weights)
    call = steps.one_step(whole, int(random.integers(case.arguments["query"].shape[1])), state)
    _hold(adapter, call, f"{dtype} {case.name}")


def _hold(adapter: Adapter, call: OpCall, label: str) -> None:
    result, expected = adapter.run_op(call), truth.evaluate(call)
    if call.dtype == "float64":
        return checks.compare(result, expected, call)
    for found, right in _pairs(result, expected):
        if right.size > 8 and np.abs(right).max(initial=0) < 1e4:  # a few small numbers may cancel
            assert_within(found, right, tolerance(call.dtype, "module"), label)
    for name, gradient in expected.gradients.items():  # sums of many that cancel have no digits to compare
        for found, right in zip(_parts(result.gradients[name]), _parts(gradient), strict=True):
            assert found.shape == right.shape, f"{label}: gradient of {name}"
            assert np.isfinite(found).all() or np.abs(right).max() > 1e3, f"{label}: gradient of {name}"


def _pairs(result: Any, expected: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    yield result.output, expected.output
    for found, right in [(result.last_state, expected.last_state)] if expected.last_state is not None else []:
        yield from zip(_parts(found), _parts(right), strict=True)


def _parts(value: Any) -> tuple[np.ndarray, ...]:
    return value if isinstance(value, tuple) else (value,)


def draw(op: str, random: np.random.Generator, sizes: Any) -> Case:
    """Draw a case of an op, of one of the sizes along each axis."""
    name = f"fuzz_{random.integers(1 << 40)}"
    options: dict[str, Any] = {"initial": bool(random.integers(2)), "last": bool(random.integers(2))}
    if random.integers(4) == 0:
        options["scale"] = float(random.choice([0.0, -1.0, 1e-3, 7.0]))
    j = KINDS[random.choice(len(KINDS), p=[0.55, 0.15, 0.15, 0.15])]
    if op == "plstm_graph":
        heads = int(random.choice([0, 1, 2, 3], p=[0.05, 0.3, 0.45, 0.2]))
        shape = _graphs(random, [size for size in sizes if size <= FEW + 1])
        return cases.graph(name, shape, heads=heads, j=None if j == cases.SCALAR else j, **options)
    options |= {
        "special": bool(random.integers(2)),
        "batch": int(random.choice([0, 1, 2, 3], p=[0.05, 0.3, 0.45, 0.2])),
    }
    if op == "plstm_1d":
        length = int(random.choice(sizes))
        options["chunk_size"] = None if random.integers(2) else int(random.integers(1, 18))
        if random.integers(3) == 0:
            inner = np.sort(random.integers(0, length + 1, int(random.integers(0, 5))))
            options["bounds"] = [0, *inner.tolist(), length]
        return cases.sequence(name, length, j, **options)
    mode = str(random.choice([*cases.MODES, "P_values"]))
    if mode == "full":
        options["special"] = False  # four transitions of one are not stable
    columns, rows = (int(random.choice([size for size in sizes if size <= FEW])) for _ in range(2))
    options["block_size"] = None if random.integers(2) else int(random.integers(1, 9))
    return cases.grid(name, columns, rows, mode, j, oriented=op == "plstm_2d_oriented", **options)


def _draw_large(op: str, random: np.random.Generator) -> Case:
    name = f"fuzz_{random.integers(1 << 40)}"
    options: dict[str, Any] = {"initial": bool(random.integers(2)), "last": bool(random.integers(2))}
    if op == "plstm_graph":
        return cases.graph(name, _dag(random, DENSE, 0.6), heads=1, **options)
    if op == "plstm_1d":
        return cases.sequence(name, LONG, batch=1, special=True, **options)
    mode = str(random.choice(cases.MODES))
    return cases.grid(name, *LARGE, mode, batch=1, oriented=op == "plstm_2d_oriented", **options)


def with_shared_arrays(case: Case, random: np.random.Generator) -> Case:
    """The case with one array under several names of its shape, now and then."""
    if random.integers(3):
        return case
    alike = defaultdict(list)
    for name, array in case.arguments.items():
        # transitions of P-mode are stable as they are only
        if isinstance(array, np.ndarray) and not (name.startswith("transition_") and _is_directed(case)):
            alike[array.shape, name.startswith("transition")].append(name)
    same: dict[str, str] = {}
    for first, *others in alike.values():
        same |= {name: first for name in others if random.integers(2)}
    kept = {name: value for name, value in case.arguments.items() if name not in same}
    return replace(case, arguments=kept, same=same)


def _is_directed(case: Case) -> bool:
    """Whether a grid is in P-mode, said or not."""
    four = [case.arguments.get(f"transition_{letters}") for letters in ("rl", "du", "dl", "ru")]
    bounds = [np.inf if array is None else np.abs(array).max(initial=0) for array in four]
    return case.keywords.get("mode") == "P" or 0.45 < max(bounds) < np.inf


def _graphs(random: np.random.Generator, sizes: list[int]) -> DagTopology:
    """One graph, or several side by side."""
    mode = str(random.choice(["P", "D"]))
    count = int(random.choice([1, 1, 1, 2, 4]))
    drawn = ((int(random.choice(sizes)), float(random.choice([0.1, 0.3, 0.6]))) for _ in range(count))
    return DagTopology.batch([_dag(random, nodes, share, mode) for nodes, share in drawn])


def _dag(random: np.random.Generator, nodes: int, share: float, mode: str = "P") -> DagTopology:
    order = random.permutation(nodes)
    edges = [(int(order[a]), int(order[b])) for b in range(nodes) for a in range(b) if random.random() < share]
    random.shuffle(edges)
    return DagTopology.from_edges(nodes, np.array(edges, int).reshape(-1, 2), mode)
