"""The pLSTM layer on sequences."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from plstm_config import pLSTM1DLayerConfig
from plstm_config.checks import check_cache

from ._contractions import Array
from ._interaction import Reading, finish, merge, normalize_heads, split
from ._modules import Cache, Context, Module, mixing
from ._plstm_1d import plstm_1d

_GATES = {"source": "S", "transition": "T", "mark": "M"}


@mixing(pLSTM1DLayerConfig)
def layer_1d(module: Module, x: Array, context: Context) -> tuple[Array, Cache]:
    """Gates and projections, the recurrence of every head, norm, projection and passthrough.

    With c the convolution of x, every part reads x or c::

        y = outprojection(mhnorm(plstm_1d(query, key, value, source, transition, mark, direct))) + passthrough

    A bidirectional layer has the sum of `plstm_1d` in both directions in that place, with `direct` in the first only.
    """
    if module.config.bidirectional:
        return _both_ways(module, x), {}
    if context.cache is not None:
        check_cache(context.cache, ("state", "window") if module.has("conv") else ("state",), len(x))
    convolved, window = _convolve(module, x, context.cache)
    reading = Reading(module, x, convolved)
    arguments = reading.projections() | {name: reading.part(name, letter) for name, letter in _GATES.items()}
    merged: dict[str, Any] = {name: merge(array) for name, array in arguments.items()}
    output, state = plstm_1d(
        **merged,
        initial_state=None if context.cache is None else merge(context.cache["state"]),
        return_last_state=True,
    )
    heads = module.config.num_heads
    cache = {"state": split(state, heads)} | ({} if window is None else {"window": window})
    return finish(reading, normalize_heads(module, split(output, heads))), cache


def _both_ways(module: Module, x: Array) -> Array:
    """The recurrence from the start with gates 2 h, plus the one from the end with gates 2 h + 1."""
    reading = Reading(module, x, module.apply_part("conv", x))
    forward: dict[str, Any] = {name: merge(array) for name, array in reading.projections().items()}
    backward = forward | {"direct": np.zeros_like(forward["direct"])}
    for name, letter in _GATES.items():
        gate = reading.part(name, letter)
        forward[name], backward[name] = merge(gate[:, ::2]), merge(gate[:, 1::2])
    output = np.asarray(plstm_1d(**forward)) + from_the_end(backward)
    return finish(reading, normalize_heads(module, split(output, module.config.num_heads)))


def from_the_end(arguments: dict[str, Any]) -> Array:
    """The recurrence [B, T, ...] of reversed arguments, reversed back."""
    output = plstm_1d(**{name: array[:, ::-1] for name, array in arguments.items()})
    return np.asarray(output)[:, ::-1]


def _convolve(module: Module, x: Array, cache: Mapping[str, Array] | None) -> tuple[Array, Array | None]:
    """The convolution of what comes after the window, and the window of the last k - 1 inputs."""
    if not module.has("conv"):
        return x, None
    conv = module.part("conv")
    width = conv.config.kernel_size - 1
    before = np.zeros((x.shape[0], width, x.shape[2])) if cache is None else cache["window"]
    extended = np.concatenate([before, x], axis=1)
    return conv(extended)[:, width:], extended[:, x.shape[1] :]
