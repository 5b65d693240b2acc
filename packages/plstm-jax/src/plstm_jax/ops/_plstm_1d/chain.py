"""The states between chunks: what the chunks write, one after the other, becomes what enters each of them."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax

from plstm_jax.ops._plstm_1d.problem import state_at, with_state
from plstm_jax.ops.arrays import causal_product, contract
from plstm_jax.ops.lines import decay_line, line_matrix


def chain(states: Array, carry: Array, written: Array, sequences: Array | None) -> tuple[Array, Array]:
    """Hand states from chunk to chunk.

    Args:
        states: before the first chunk, one per packed sequence [S, B, JT, DV, DK].
        carry: the transition over each chunk [B, N, JT, JT].
        written: what each chunk adds to its leaving state [B, N, JT, DV, DK].
        sequences: the packed sequence that each chunk belongs to [N]; None where there is but one.

    Returns:
        The states after the last chunk, and those that enter the chunks, shaped as `written`.
    """
    if sequences is not None:
        return _by_sequence(states, carry, written, sequences)
    # Few chunks are at hand at once, so one product is faster than a step for each.
    matrix = line_matrix(decay_line(carry))
    batch, count, jt, *dims = written.shape
    sources = jnp.concatenate([states[0][:, None], written], 1).reshape(batch, count + 1, jt, -1)
    matrix = matrix.reshape(batch, count + 1, jt, count + 1, jt)
    found = causal_product("...ntms,...msc->...ntc", matrix, sources, True)
    found = found.reshape(batch, count + 1, jt, *dims)
    return found[None, :, -1], found[:, :-1]


def _by_sequence(states: Array, carry: Array, written: Array, sequences: Array) -> tuple[Array, Array]:
    def step(states: Array, chunk: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        carry, written, sequence = chunk
        entering = state_at(states, sequence)
        leaving = contract("...ts,...sed->...ted", carry, entering) + written
        return with_state(states, sequence, leaving), entering

    chunks = jnp.moveaxis(carry, 1, 0), jnp.moveaxis(written, 1, 0), sequences
    states, entering = lax.scan(step, states, chunks)
    return states, jnp.moveaxis(entering, 0, 1)
