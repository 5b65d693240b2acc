"""What the pLSTM layers on sequences and on grids share around the recurrence."""

from typing import Any

import numpy as np

from plstm_config import IdentityConfig

from ._contractions import Array
from ._modules import Module


class Reading:
    """The parts of a layer, each reading the input or its convolution.

    The letters in `convolution_inputs` name those that read the convolution: S source, T transition, M mark,
    D direct, Q query, K key, V value, P passthrough, O orientation.
    """

    def __init__(self, module: Module, x: Array, convolved: Array) -> None:
        self.module = module
        self._x = x
        self._convolved = convolved

    def read(self, letter: str) -> Array:
        """What the part of this letter reads."""
        return self._convolved if letter in self.module.config.convolution_inputs else self._x

    def part(self, name: str, letter: str) -> Array:
        """Output [B, ..., H, ...] of a part, with the heads in front of the positions: [B, H, ..., ...]."""
        output = self.module.part(name)(self.read(letter))
        return np.moveaxis(output, self._x.ndim - 1, 1)

    def projections(self) -> dict[str, Any]:
        """Query, key, value and direct, [B, H, ..., ...] each."""
        query = self.part("query", "Q")
        key = self.part("key", "K") if self.module.has("key") else query
        return {"query": query, "key": key, "value": self.part("value_", "V"), "direct": self.part("direct", "D")}


def merge(array: Array) -> Array:
    """[B, H, ...] as [B * H, ...]: to the recurrence a head is a batch entry of its own."""
    return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])


def split(array: Array, num_heads: int) -> Array:
    """[B * H, ...] as [B, H, ...]."""
    return array.reshape(len(array) // num_heads, num_heads, *array.shape[1:])


def normalize_heads(module: Module, output: Array) -> Array:
    """The recurrence's output [B, H, ..., DV, JO] as features [B, ..., H * DV * JO], normed by `mhnorm`.

    Norms with the heads on an axis see the heads apart; norms over features see those of all heads in a row.
    """
    norm = module.part("mhnorm")
    heads = output.reshape(*output.shape[:-2], output.shape[-2] * output.shape[-1])
    if isinstance(norm.config, IdentityConfig):
        return join_heads(heads)
    if getattr(norm.config, "axis", None) is None:
        return norm(join_heads(heads))
    return join_heads(norm(heads))


def join_heads(heads: Array) -> Array:
    """[B, H, ..., W] as [B, ..., H * W]."""
    moved = np.moveaxis(heads, 1, -2)
    return moved.reshape(*moved.shape[:-2], moved.shape[-2] * moved.shape[-1])


def finish(reading: Reading, features: Array) -> Array:
    """Project the normed features back, and add the passthrough."""
    module = reading.module
    output = module.apply_part("outprojection", features)
    if module.has("passthrough"):
        output = output + module.part("passthrough")(reading.read("P"))
    return output
