"""Modules on sequences: step by step, in pieces, and packed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np

from plstm_config.checks import Kind

from ..tolerances import assert_close
from .adapter import Adapter, Array, ModuleCall, Result
from .compiled import compiles, module_dtypes
from .module_draws import seeded
from .modules import (
    DTYPES,
    GROUPS,
    call,
    case_named,
    compare_derivative,
    compare_output,
    evaluate,
    is_module,
    with_directions,
)

# Of several lengths, among them none and one; the third is the one that gets spoilt.
BORDERS = np.array([0, 4, 4, 6, 7, 10])
SPOILT = 2


@cache
def sequence_cases(kind: Kind = "sequence") -> tuple[tuple[str, str], ...]:
    """Group and name of all cases of modules with one time axis and an input of at least three steps.

    Args:
        kind: "sequence" for those that have a cache, "bidirectional" for those that have none.

    Returns:
        Pairs in the order of the cases.
    """
    found = []
    for group, cases in GROUPS.items():
        for case in cases():
            if case.config.kind == kind and next(iter(case.inputs.values())).shape[1] in range(3, 20):
                found.append((group, case.name))
    return tuple(found)


def check_steps(adapter: Adapter, group: str, name: str, dtype: str) -> None:
    """Step by step from the start: the outputs of the full pass, and its cache at the end."""
    asked = _call(group, name, dtype)
    outputs, state = [], None
    for time in range(_length(asked)):
        outputs.append(adapter.run_module(_step(asked, time, state)))
        state = outputs[-1].cache
    _compare_pieces(outputs, expected(group, name, dtype), dtype, axis=None)


def check_pieces(adapter: Adapter, group: str, name: str, dtype: str) -> None:
    """In pieces, among them an empty one, and at the end a step, each from the cache that the last one left."""
    asked = _call(group, name, dtype)
    length, outputs, state = _length(asked), [], None
    for start, end in pairwise([0, 1, length // 2, length // 2, length - 1]):
        keywords = {"return_cache": True} | ({} if state is None else {"cache": state})
        piece = replace(asked, inputs=_cut(asked, np.s_[:, start:end]), keywords=keywords)
        outputs.append(adapter.run_module(piece))
        state = outputs[-1].cache
    last = adapter.run_module(_step(asked, length - 1, state))
    outputs.append(replace(last, output=last.output[:, None]))
    _compare_pieces(outputs, expected(group, name, dtype), dtype, axis=1)


@cache
def expected(group: str, name: str, dtype: str) -> Result:
    """The reference's full pass with its cache."""
    return evaluate(_call(group, name, dtype))


def packed_call(group: str, name: str, *, cached: bool) -> ModuleCall:
    """A case with packed sequences instead of its own input, from the start or from random caches."""
    case, random = case_named(group, name), seeded(f"{name}/packed")
    asked = call(case)
    (argument, array), *_ = asked.inputs.items()
    shape = (array.shape[0], int(BORDERS[-1]), *array.shape[2:])
    packed = random.standard_normal(shape) if array.dtype.kind == "f" else random.integers(0, array.max() + 1, shape)
    keywords: dict[str, Any] = {"cu_seqlens": BORDERS}
    if asked.config.kind == "sequence":
        keywords["return_cache"] = True
    if cached:
        rows = array.shape[0] * (len(BORDERS) - 1)
        layout = evaluate(replace(asked, keywords={"return_cache": True})).cache or {}
        keywords["cache"] = {key: random.standard_normal((rows, *entry.shape[1:])) for key, entry in layout.items()}
    return replace(asked, inputs={argument: packed}, keywords=keywords)


def check_packed(adapter: Adapter, group: str, name: str, *, cached: bool) -> None:
    """Packed sequences equal separate ones: outputs, caches and derivatives."""
    asked = packed_call(group, name, cached=cached)
    truth_ = evaluate(asked)
    asked = with_directions(asked, name, truth_.output)
    answer = adapter.run_module(asked)
    compare_output(answer, truth_, asked.dtype, "output of packed sequences")
    compare_cache(answer, truth_, asked.dtype)
    compare_derivative(adapter, asked, answer)


def check_spoilt(adapter: Adapter, group: str, name: str, *, cached: bool) -> None:
    """A packed sequence of NaN and infinities, in input and cache, leaves its neighbours as they are."""
    asked = packed_call(group, name, cached=cached)
    count, kept = len(BORDERS) - 1, np.ones(BORDERS[-1], bool)
    kept[BORDERS[SPOILT] : BORDERS[SPOILT + 1]] = False
    truth_ = evaluate(asked)
    if compiles(adapter):  # the program of the packed sequences serves here, too
        asked = with_directions(asked, name, truth_.output)
    inputs = {argument: _spoil(array, np.s_[:, ~kept]) for argument, array in asked.inputs.items()}
    keywords = dict(asked.keywords)
    if cached:
        keywords["cache"] = {key: _spoil(array, np.s_[SPOILT::count]) for key, array in keywords["cache"].items()}
    answer = adapter.run_module(replace(asked, inputs=inputs, keywords=keywords))
    rows = np.arange(len(answer.output) * count) % count != SPOILT
    healthy, right = (
        replace(one, output=one.output[:, kept], cache={key: array[rows] for key, array in (one.cache or {}).items()})
        for one in (answer, truth_)
    )
    compare_output(healthy, right, asked.dtype, "output beside a spoilt sequence")
    compare_cache(healthy, right, asked.dtype)


def compare_cache(result: Result, expected: Result, dtype: str) -> None:
    """Compare the entries of two caches, and the dtype of the states.

    Args:
        result: what a backend gave.
        expected: what the reference gives.
        dtype: in which the backend computed.

    Raises:
        AssertionError: if they differ.
    """
    found, wanted = result.cache or {}, expected.cache or {}
    if set(found) != set(wanted):
        raise AssertionError(f"cache: expected the entries {sorted(wanted)}, got {sorted(found)}")
    if result.state_dtype != expected.state_dtype:
        raise AssertionError(f"cache: expected states in {expected.state_dtype}, got {result.state_dtype}")
    for name, array in wanted.items():
        assert_close(found[name], array, dtype, "module", f"cache entry {name}")


def step_checks(adapter: Adapter) -> Iterator[tuple[str, Callable[[], None]]]:
    """The checks of steps by name."""
    for group, name in _served(adapter):
        for dtype in module_dtypes(adapter, DTYPES):
            yield f"{name}-steps-{dtype}", partial(check_steps, adapter, group, name, dtype)
            # every length of a piece is a program of its own; types of caches are seen step by step
            if dtype == "float64" or not compiles(adapter):
                yield f"{name}-pieces-{dtype}", partial(check_pieces, adapter, group, name, dtype)


def packed_checks(adapter: Adapter) -> Iterator[tuple[str, Callable[[], None]]]:
    """The checks of packed sequences by name."""
    starts: dict[Kind, dict[str, bool]] = {"sequence": {"new": False, "cached": True}, "bidirectional": {"new": False}}
    for kind, known in starts.items():
        for group, name in _served(adapter, kind):
            for start, cached in known.items():
                yield f"{name}-{start}", partial(check_packed, adapter, group, name, cached=cached)
                yield f"{name}-{start}-spoilt", partial(check_spoilt, adapter, group, name, cached=cached)


def _served(adapter: Adapter, kind: Kind = "sequence") -> Iterator[tuple[str, str]]:
    for group, name in sequence_cases(kind):
        if is_module(adapter, case_named(group, name).config):
            yield group, name


def _call(group: str, name: str, dtype: str) -> ModuleCall:
    return replace(call(case_named(group, name), dtype), keywords={"return_cache": True})


def _length(asked: ModuleCall) -> int:
    return int(next(iter(asked.inputs.values())).shape[1])


def _cut(asked: ModuleCall, at: Any) -> dict[str, Array]:
    return {name: array[at] for name, array in asked.inputs.items()}


def _step(asked: ModuleCall, time: int, state: Mapping[str, Array] | None) -> ModuleCall:
    keywords = {} if state is None else {"cache": state}
    return replace(asked, method="step", inputs=_cut(asked, np.s_[:, time]), keywords=keywords)


def _compare_pieces(outputs: list[Result], truth_: Result, dtype: str, axis: int | None) -> None:
    arrays = [piece.output for piece in outputs]
    joined = np.stack(arrays, axis=1) if axis is None else np.concatenate(arrays, axis=axis)
    whole = replace(outputs[-1], output=joined)
    compare_output(whole, truth_, dtype, "output of the pieces")
    compare_cache(whole, truth_, dtype)


def _spoil(array: Array, at: Any) -> Array:
    """NaN and infinities in turn; tokens stay, since they cannot be either."""
    if array.dtype.kind != "f":
        return array
    spoilt = array.copy()
    spoilt[at] = np.resize([np.nan, np.inf, -np.inf], spoilt[at].shape)
    return spoilt
