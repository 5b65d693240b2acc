"""Chunks without state-tracking dimensions: gates are numbers, and the decay alone is the mask."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from plstm_jax.ops._plstm_1d.chain import chain
from plstm_jax.ops._plstm_1d.problem import Steps
from plstm_jax.ops.arrays import causal_product, contract, where_seen
from plstm_jax.ops.lines import scalar_decay


def scalar_segment(states: Array, steps: Steps, sequences: Array | None) -> tuple[Array, Array]:
    """The states after the chunks [B, N, c, ...], and their output.

    With q' = M q and k' = S k the mask is the decay itself, and a step's own input is no part of it::

        H = (R * q' k'^T) v + prefix q' C + D (q k) v        C  <-  total C + (suffix k')^T v
    """
    query, key, value = (array[..., 0] for array in (steps.query, steps.key, steps.value))
    source, mark, direct = (array.reshape(*array.shape[:3], 1) for array in (steps.source, steps.mark, steps.direct))
    decay = scalar_decay(steps.transition[..., 0, 0])
    marked, sourced = mark * query, source * key
    scores = contract("...id,...jd->...ij", marked, sourced) * decay[..., :-1, 1:]
    output = causal_product("...nm,...me->...ne", where_seen(scores, -2, -1, own=False), value, False)
    output = output + direct * jnp.sum(query * key, -1, keepdims=True) * value
    written = contract("...je,...jd->...ed", value, sourced * decay[..., -1, 1:, None])
    carry = decay[..., -1, 0][..., None, None]
    states, entering = chain(states, carry, written[:, :, None], sequences)
    read = contract("...id,...ed->...ie", marked * decay[..., :-1, 0, None], entering[:, :, 0])
    return states, (output + read)[..., None]
