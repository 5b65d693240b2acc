"""What the pLSTM layers on sequences and on grids share around the recurrence."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from plstm_config.interaction import InteractionLayerConfig
from plstm_jax.axes import merge_axes
from plstm_jax.dtypes import answer, dtype_of
from plstm_jax.formulas import Scope


class Parts:
    """The submodules of a layer, each with the input that it reads.

    Args:
        config: of the layer.
        scope: of the layer.
        x: its input [..., D].
        convolved: the same [..., D] after the convolution, if there is one.
    """

    def __init__(self, config: InteractionLayerConfig, scope: Scope, x: Array, convolved: Array) -> None:
        self._config = config
        self._scope = scope
        self._x = x
        self._convolved = convolved

    def pick(self, letter: str) -> Array:
        """The input of one part: the convolved features if `convolution_inputs` names its letter."""
        return self._convolved if letter in self._config.convolution_inputs else self._x

    def read(self, name: str, letter: str) -> Array:
        """The output of one part."""
        return self._scope.map(name, self.pick(letter))

    def query_key_value(self) -> dict[str, Array]:
        """The three by name, [..., H, K, J]."""
        query = self.read("query", "Q")
        key = query if self._config.tie_query_key else self.read("key", "K")
        return {"query": query, "key": key, "value": self.read("value_", "V")}

    def project(self, heads: Array) -> Array:
        """From the heads' normalised outputs [B, H, ..., DV * JO] to the layer's output [B, ..., D], in x's dtype."""
        last = jnp.moveaxis(heads, 1, -2)
        output = merge_axes(last, last.ndim - 2, -1).astype(dtype_of(self._config.dtype))
        if self._config.outprojection:
            output = self._scope.map("outprojection", output)
        if self._config.passthrough is not None:
            output = output + self.read("passthrough", "P")
        return answer(output, self._x)


def merge_heads(arrays: dict[str, Any], grid_axes: int) -> dict[str, Any]:
    """Bring arrays [B, grid..., H, ...] to [B * H, grid..., ...]."""
    moved = {name: jnp.moveaxis(array, 1 + grid_axes, 1) for name, array in arrays.items()}
    return {name: merge_axes(array, 0, 1) for name, array in moved.items()}
