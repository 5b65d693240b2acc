"""Chunks of the sequence: many of them at once inside, one after the other at their borders."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array, lax

from plstm_jax.ops.arrays import contract, masked_attention
from plstm_jax.ops.lines import Line, line_response
from plstm_jax.ops.plstm_1d.packing import packed_layout, plain_layout
from plstm_jax.ops.plstm_1d.problem import Problem, Result, Steps, move_state, state_at, with_state
from plstm_jax.ops.plstm_1d.scalar import scalar_segment

# Entries of the states or of the masks of the chunks that are worked on at once, as measured on CPU: what a segment
# writes down stays in the cache, and only the states between segments are kept for the backward pass.
SEGMENT = 2**18
LEAST_CHUNKS = 8


def chunkwise(problem: Problem, chunk_size: int) -> Result:
    """Segments one after the other, each of several chunks of `chunk_size` steps."""
    length = problem.steps.query.shape[1]
    if length == 0:
        return _no_output(problem.steps), problem.states
    chunk_size = min(chunk_size, length)
    together = max(LEAST_CHUNKS, SEGMENT // max(1, _entries(problem.steps, chunk_size)))
    if problem.bounds is None:
        layout = plain_layout(length, chunk_size, together)
    else:
        layout = packed_layout(length, chunk_size, together, problem.bounds)
    chunks = layout.split(problem.steps), layout.sequences
    segments = -(-layout.chunks // together)
    segment = scalar_segment if problem.steps.is_scalar else _segment
    if segments == 1:
        states, output = segment(problem.states, chunks)
        return layout.join(output), states
    chunks = jax.tree.map(lambda array: array.reshape(segments, together, *array.shape[1:]), chunks)
    # The scan keeps the two passes apart already.
    states, output = lax.scan(jax.checkpoint(segment, prevent_cse=False), problem.states, chunks)
    return layout.join(output.reshape(layout.chunks, *output.shape[2:])), states


def _entries(steps: Steps, chunk_size: int) -> int:
    """Entries of what one chunk adds to the largest of the intermediate arrays."""
    state = steps.key.shape[2] * steps.value.shape[2] * steps.transition.shape[-1]
    return steps.key.shape[0] * max(state, chunk_size**2 * math.prod(steps.direct.shape[2:]))


def _segment(states: Array, chunks: tuple[Steps, Array | None]) -> tuple[Array, Array]:
    """Masked attention within chunks [N, B, c, ...], and a scan over the states between them."""
    steps, sequences = chunks
    gating, read, write, carry = _responses(steps)
    output = masked_attention(steps.query, steps.key, steps.value, gating)
    sent = contract("...jtkv,...jev->...jkte", write, steps.value)
    written = contract("...jdk,...jkte->...dte", steps.key, sent)

    def step(states: Array, inputs: tuple[Array, Array, Array | None]) -> tuple[Array, Array]:
        transition, update, sequence = inputs
        state = state_at(states, sequence)
        return with_state(states, sequence, move_state(transition, state) + update), state

    states, entering = lax.scan(step, states, (carry, written, sequences))
    seen = contract("...idq,...dte->...iqte", steps.query, entering)
    return states, output + contract("...ioqt,...iqte->...ieo", read, seen)


def _responses(chunks: Steps) -> tuple[Array, Array, Array, Array]:
    """Gating matrix [N, B, c, JO, JQ, c, JK, JV], read [N, B, c, JO, JQ, JT], write [N, B, c, JT, JK, JV], carry."""
    *lead, size, jt, jk, jv = chunks.source.shape
    jo, jq = chunks.mark.shape[-3:-1]
    response = line_response(
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


def _no_output(steps: Steps) -> Array:
    return jnp.zeros((*steps.value.shape[:3], steps.mark.shape[2]), steps.value.dtype)
