"""Deliberately broken backends with layers that read sequences from both ends: the suite must catch every one."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import numpy as np

from ..reference import _layers_1d as layers
from ..reference import plstm_1d
from ..reference._layers_1d import from_the_end
from .adapter import Array, ModuleCall, Result
from .module_mutants import ModuleMutant, OtherCalls, OtherResults, forgotten_cache, joined, leaky, option
from .numpy_adapter import NumpyAdapter

_GATES = ("source", "transition", "mark")


class OtherWayBack(NumpyAdapter):
    """Computes the recurrence from the end in another way.

    Args:
        other: from its arguments [B, T, ...] to its output.
    """

    def __init__(self, other: Callable[[dict[str, Any]], Array]) -> None:
        self._other = other

    def run_module(self, call: ModuleCall) -> Result:
        """The answer with it."""
        with mock.patch.object(layers, "from_the_end", self._other):
            return super().run_module(call)


class MirroredAsAWhole(NumpyAdapter):
    """Reverses all of T at once, so that packed sequences lie behind borders that are not theirs."""

    def run_module(self, call: ModuleCall) -> Result:
        """The answer to packed calls: both ways as one row, with the borders where they were."""
        borders = call.keywords.get("cu_seqlens")
        if borders is None:
            return super().run_module(call)
        with mock.patch.object(layers, "plstm_1d", partial(plstm_1d, cu_seqlens=borders)):
            return super().run_module(replace(call, keywords={}))


def never_turned(arguments: dict[str, Any]) -> Array:
    """Both directions run from the start."""
    return np.asarray(plstm_1d(**arguments))


def not_turned_back(arguments: dict[str, Any]) -> Array:
    """The output stays in the order from the end."""
    return from_the_end(arguments)[:, ::-1]


def _of_gates(call: ModuleCall, change: Callable[[Array], Array], names: tuple[str, ...]) -> ModuleCall:
    """Other parameters of some gates of a bidirectional layer."""
    if not getattr(call.config, "bidirectional", False):
        return call
    found = {n: change(array) if n.startswith(names) else array for n, array in call.parameters.items()}
    return replace(call, parameters=found)


def direct_twice(call: ModuleCall) -> ModuleCall:
    """Each direction adds the direct term."""
    return _of_gates(call, lambda array: 2.0 * array, ("direct.",))


def direction_major(call: ModuleCall) -> ModuleCall:
    """Heads of gates in the order o * H + h."""

    def sorted_by_direction(array: Array) -> Array:
        return np.concatenate([array[::2], array[1::2]]) if array.shape[0] > 2 else array

    return _of_gates(call, sorted_by_direction, tuple(f"{name}." for name in _GATES))


BIDIRECTIONAL_MUTANTS: tuple[ModuleMutant, ...] = (
    ModuleMutant("never_turned", "layers", OtherWayBack(never_turned), "1d_bidirectional"),
    ModuleMutant("not_turned_back", "layers", OtherWayBack(not_turned_back), "1d_bidirectional"),
    ModuleMutant("direct_twice", "layers", OtherCalls(direct_twice), "1d_bidirectional"),
    ModuleMutant("direction_major_heads", "layers", OtherCalls(direction_major), "1d_bidirectional"),
    ModuleMutant("one_sided_sequences", "layers", OtherCalls(option("causal", lambda causal: True)), "convolution_1d"),
    ModuleMutant("mirrored_as_a_whole", "packed_layers", MirroredAsAWhole(), "1d_bidirectional_no_convolution"),
    ModuleMutant("neighbours_seen_both_ways", "packed_layers", OtherResults(joined), "1d_bidirectional"),
    ModuleMutant("neighbours_times_zero_both_ways", "packed_layers", OtherResults(leaky), "1d_bidirectional"),
    ModuleMutant("cache_unrefused", "module_errors", OtherCalls(forgotten_cache), "1d_bidirectional_length_7-cache"),
)
