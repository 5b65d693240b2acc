"""Chunks without state-tracking dimensions: gates are numbers, and the decay alone is the mask."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array, lax

from plstm_jax.ops.arrays import contract
from plstm_jax.ops.lines import scalar_decay
from plstm_jax.ops.plstm_1d.problem import Steps, state_at, with_state


def scalar_segment(states: Array, chunks: tuple[Steps, Array | None]) -> tuple[Array, Array]:
    """The states after the chunks [N, B, c, ...], and their output.

    With q' = M q and k' = S k the mask is the decay itself, and a step's own input is no part of it::

        H = (R * q' k'^T) v + prefix q' C + D (q k) v        C  <-  total C + (suffix k')^T v
    """
    steps, sequences = chunks
    query, key, value = (array[..., 0] for array in (steps.query, steps.key, steps.value))
    source, mark, direct = (array.reshape(*array.shape[:3], 1) for array in (steps.source, steps.mark, steps.direct))
    decay = scalar_decay(steps.transition[..., 0, 0])
    marked, sourced = mark * query, source * key
    scores = contract("...id,...jd->...ij", marked, sourced) * decay[..., :-1, 1:]
    output = contract("...ij,...je->...ie", scores, value)
    output = output + direct * jnp.sum(query * key, -1, keepdims=True) * value
    written = contract("...jd,...je->...de", sourced * decay[..., -1, 1:, None], value)

    def step(states: Array, inputs: tuple[Array, Array, Array | None]) -> tuple[Array, Array]:
        total, update, sequence = inputs
        state = state_at(states, sequence)
        return with_state(states, sequence, total[:, None] * state + update), state

    dims = states.shape[2], states.shape[4]
    flat = states.reshape(*states.shape[:2], math.prod(dims))
    written = written.reshape(*written.shape[:2], math.prod(dims))
    last, entering = lax.scan(step, flat, (decay[..., -1, 0], written, sequences))
    entering = entering.reshape(*entering.shape[:2], *dims)
    output = output + contract("...id,...de->...ie", marked * decay[..., :-1, 0, None], entering)
    return last.reshape(states.shape), output[..., None]
