"""Every op of every backend that is installed, against the numpy reference."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from plstm_config.shapes import DIRECTED, PLSTM_1D, PLSTM_2D
from plstm_config.topology import DagTopology
from plstm_testing.conformance import adapter as adapters
from plstm_testing.conformance import cases, checks, isolation, truth
from plstm_testing.conformance.adapter import Adapter
from plstm_testing.conformance.draws import Case
from plstm_testing.tolerances import assert_within, tolerance

PACKAGES = Path(__file__).parent.parent / "packages"
BACKENDS = {"torch": "plstm-torch", "jax": "plstm-jax"}
# JAX compiles every new shape: few sizes there, any here.
SIZES = {"torch": range(41), "jax": (0, 1, 5, 9)}
KINDS = (cases.SCALAR, cases.STATE_TRACKING, cases.WIDE_SCALAR_STATE, cases.STATE_ONLY)
SPECIAL = (np.nan, np.inf, -np.inf, 1e200, 0.0, 1e-320)


def operation_targets() -> dict[str, Callable[[np.random.Generator], None]]:
    """A target for each op and backend, by name."""
    targets: dict[str, Callable[[np.random.Generator], None]] = {}
    for name, package in BACKENDS.items():
        if find_spec(package.replace("-", "_")) is not None:
            targets |= {f"{name}_{op}": partial(_compare, name, op) for op in cases.OPS}
            targets[f"{name}_isolation"] = partial(_isolate, name)
    return targets


@cache
def _adapter(backend: str) -> Adapter:
    return adapters.load_adapter(PACKAGES / BACKENDS[backend] / "conformance" / "adapter.py")


def _compare(backend: str, op: str, random: np.random.Generator) -> None:
    """One case: outputs, states, gradients; in narrow dtypes with the room of a whole module."""
    adapter, case = _adapter(backend), _draw(op, random, SIZES[backend])
    implementation = str(random.choice([*adapter.implementations[op], "auto"]))
    dtype = str(random.choice(["float64", "float64", *adapter.dtypes]))
    call = truth.call(case, implementation, dtype, adapter.devices[0], strided=bool(random.integers(2)))
    result, expected = adapter.run_op(call), truth.evaluate(call)
    if dtype == "float64":
        return checks.compare(result, expected, call)
    for found, right in _pairs(result, expected):
        if right.size > 8 and np.abs(right).max(initial=0) < 1e4:  # a few small numbers may cancel
            assert_within(found, right, tolerance(dtype, "module"), f"{implementation} {dtype} {case.name}")


def _pairs(result: Any, expected: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    yield result.output, expected.output
    for found, right in [(result.last_state, expected.last_state)] if expected.last_state is not None else []:
        yield from zip(_parts(found), _parts(right), strict=True)


def _parts(value: Any) -> tuple[np.ndarray, ...]:
    return value if isinstance(value, tuple) else (value,)


def _draw(op: str, random: np.random.Generator, sizes: Any) -> Case:
    name = f"fuzz_{random.integers(1 << 40)}"
    options: dict[str, Any] = {"initial": bool(random.integers(2)), "last": bool(random.integers(2))}
    if random.integers(4) == 0:
        options["scale"] = float(random.choice([0.0, -1.0, 1e-3, 7.0]))
    j = KINDS[random.choice(len(KINDS), p=[0.55, 0.15, 0.15, 0.15])]
    if op == "plstm_graph":
        return cases.graph(name, _dag(random, sizes), j=None if j == cases.SCALAR else j, **options)
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
    columns, rows = (int(random.choice([size for size in sizes if size <= 13])) for _ in range(2))
    options["block_size"] = None if random.integers(2) else int(random.integers(1, 9))
    same = _sharing(random, mode)
    return cases.grid(name, columns, rows, mode, j, oriented=op == "plstm_2d_oriented", same=same, **options)


def _sharing(random: np.random.Generator, mode: str) -> dict[str, str]:
    """One array under several names, now and then."""
    if mode == "P" or random.integers(3):
        return {}
    present = ["transition_rl", "transition_du"]
    present += {"full": ["transition_dl", "transition_ru"], "L": ["transition_ru"], "R": ["transition_dl"]}.get(
        mode, []
    )
    groups = [present, ["source_r", "source_d"], ["mark_l", "mark_u"]]
    same = {}
    for first, *others in groups:
        same |= {name: first for name in others if random.integers(2)}
    return {} if mode == "P_values" and set(same) & set(DIRECTED) else same


def _dag(random: np.random.Generator, sizes: Any) -> DagTopology:
    nodes = int(random.choice([size for size in sizes if size <= 14]))
    order = random.permutation(nodes)
    share = random.choice([0.1, 0.3, 0.6])
    edges = [(int(order[a]), int(order[b])) for b in range(nodes) for a in range(b) if random.random() < share]
    random.shuffle(edges)
    return DagTopology.from_edges(nodes, np.array(edges, int).reshape(-1, 2), str(random.choice(["P", "D"])))


def _isolate(backend: str, random: np.random.Generator) -> None:
    """Something that is not finite, or overflows, anywhere in one row: what it does not reach is right."""
    op = str(random.choice(["plstm_1d", "plstm_2d", "plstm_2d_oriented"]))
    adapter, case = _adapter(backend), _draw(op, random, (7, 13) if backend == "torch" else (5, 9))
    rows = len(case.arguments["query"])
    if rows < 2 or case.same:
        return
    names = [name for name in (PLSTM_1D if op == "plstm_1d" else PLSTM_2D) if case.arguments.get(name) is not None]
    name, row = str(random.choice(names)), int(random.integers(rows))
    if name.startswith(("transition", "mark")) and "initial_state" not in case.arguments:
        return  # what only multiplies the zero state where a walk begins need not be read
    array = np.array(case.arguments[name])
    flat, value = array[row].reshape(-1), float(random.choice(SPECIAL))
    flat[random.integers(flat.size)] = value
    own = np.arange(rows) == row
    free = dict.fromkeys((*names, "initial_state", "last_state"), own)
    if op == "plstm_1d":
        steps = np.repeat(own[:, None], case.arguments["query"].shape[1], 1)
        packed = len(case.keywords.get("cu_seqlens", ())) - 1
        states = np.repeat(own[:, None], packed, 1) if packed >= 0 else own
        free = dict.fromkeys(names, steps) | {"initial_state": states, "last_state": states}
    # what overflows on a grid depends on the order of products
    lost = np.array([row]) if value == 1e200 and op != "plstm_1d" else np.zeros(0, int)
    spoilt = isolation.Spoilt(replace(case, arguments={**case.arguments, name: array}), free, lost)
    implementation = str(random.choice([*adapter.implementations[op], "auto"]))
    isolation.check_isolation(adapter, spoilt, implementation)
