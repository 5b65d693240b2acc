"""Chunks with state-tracking dimensions: the responses of each chunk as of a line of nodes."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from plstm_jax.ops._plstm_1d.chain import chain
from plstm_jax.ops._plstm_1d.problem import Steps
from plstm_jax.ops.arrays import contract, masked_attention
from plstm_jax.ops.lines import Line, short_line_response


def matrix_segment(states: Array, steps: Steps, sequences: Array | None) -> tuple[Array, Array]:
    """The states after the chunks [B, N, c, ...], and their output.

    Inside a chunk it is masked attention. K and V enter the states through the source, V first, because the other
    order costs JT times as much; reading contracts Q first, then the mark.
    """
    gating, read, write, carry = _responses(steps)
    output = masked_attention(steps.query, steps.key, steps.value, gating, causal=True)
    sent = contract("...jtkv,...jev->...jkte", write, steps.value)
    written = contract("...jkte,...jdk->...ted", sent, steps.key)
    states, entering = chain(states, carry, written, sequences)
    seen = contract("...idq,...ted->...iqte", steps.query, entering)
    return states, output + contract("...ioqt,...iqte->...ieo", read, seen)


def _responses(chunks: Steps) -> tuple[Array, Array, Array, Array]:
    """Gating matrix [B, N, c, JO, JQ, c, JK, JV], read [B, N, c, JO, JQ, JT], write [B, N, c, JT, JK, JV], carry."""
    *lead, size, jt, jk, jv = chunks.source.shape
    jo, jq = chunks.mark.shape[-3:-1]
    response = short_line_response(
        Line(
            chunks.direct.reshape(*lead, size, jo * jq, jk * jv),
            chunks.mark.reshape(*lead, size, jo * jq, jt),
            chunks.source.reshape(*lead, size, jt, jk * jv),
            chunks.transition,
        )
    )
    write = jnp.moveaxis(response.write, -2, -3)
    return (
        response.nodes.reshape(*lead, size, jo, jq, size, jk, jv),
        response.read.reshape(*lead, size, jo, jq, jt),
        write.reshape(*lead, size, jt, jk, jv),
        response.carry,
    )
