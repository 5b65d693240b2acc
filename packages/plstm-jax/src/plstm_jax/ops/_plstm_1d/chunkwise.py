"""Chunks of the sequence: many of them at once inside, one after the other at their borders."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import Array

from plstm_jax.ops._plstm_1d.matrix import matrix_segment
from plstm_jax.ops._plstm_1d.packing import packed_layout, plain_layout
from plstm_jax.ops._plstm_1d.problem import Problem, Result, Steps
from plstm_jax.ops._plstm_1d.scalar import scalar_segment
from plstm_jax.ops.arrays import scan_slices

# Entries of the states or of the masks of the chunks that are worked on at once, as measured on CPU: what a segment
# writes down stays in the cache, and only the states between segments are kept for the backward pass.
SEGMENT = 2**18
LEAST_CHUNKS = 8
# Measured alike; the work inside a chunk grows with its size, the number of states between chunks falls. Masks with
# several entries for each pair of steps want shorter chunks.
CHUNK_SIZE = 32
CHUNK_SIZE_WIDE_MASK = 16


def default_chunk_size(steps: Steps) -> int:
    """Steps per chunk where the caller does not say."""
    return CHUNK_SIZE if math.prod(steps.direct.shape[2:]) == 1 else CHUNK_SIZE_WIDE_MASK


def chunkwise(problem: Problem, chunk_size: int) -> Result:
    """Segments one after the other, each of several chunks of `chunk_size` steps."""
    length = problem.steps.query.shape[1]
    if problem.steps.query.shape[0] == 0 or length == 0:
        return _no_output(problem.steps), problem.states
    chunk_size = min(chunk_size, length)
    together = max(LEAST_CHUNKS, SEGMENT // max(1, _entries(problem.steps, chunk_size)))
    if problem.bounds is None:
        layout = plain_layout(length, chunk_size, together)
    else:
        layout = packed_layout(length, chunk_size, together, problem.bounds)
    segments = -(-layout.chunks // together)
    per_segment = layout.chunks // segments
    segment = scalar_segment if problem.steps.is_scalar else matrix_segment

    def run_segment(states: Array, inputs: tuple[Steps, Array | None]) -> tuple[Array, Array]:
        steps, sequences = inputs
        chunks = Steps(*(array.reshape(len(array), per_segment, chunk_size, *array.shape[2:]) for array in steps))
        states, output = segment(states, chunks, sequences)
        return states, output.reshape(output.shape[0], per_segment * chunk_size, *output.shape[3:])

    sequences = None if layout.sequences is None else layout.sequences.reshape(segments, per_segment)
    states = jnp.moveaxis(problem.states, 2, 4)  # JT first, so that the chain is a product
    states, output = scan_slices(run_segment, states, layout.place_steps(problem.steps), sequences, segments)
    return layout.take_steps(output), jnp.moveaxis(states, 4, 2)


def _entries(steps: Steps, chunk_size: int) -> int:
    """Entries of what one chunk adds to the largest of the intermediate arrays."""
    state = steps.key.shape[2] * steps.value.shape[2] * steps.transition.shape[-1]
    return steps.key.shape[0] * max(state, chunk_size**2 * math.prod(steps.direct.shape[2:]))


def _no_output(steps: Steps) -> Array:
    return jnp.zeros((*steps.value.shape[:3], steps.mark.shape[2]), steps.value.dtype)
