"""Where the steps of a sequence, or of several packed ones, stand among the chunks.

No chunk holds steps of two sequences: each packed sequence starts a chunk of its own and fills its last one with
steps that do nothing. How many chunks that takes depends on the boundaries, which may be traced; the bound that is
used instead depends on T, S and the chunk size alone.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from plstm_jax.ops._plstm_1d.problem import Steps, sequence_of
from plstm_jax.ops.arrays import places


class Layout(NamedTuple):
    """How steps [B, T, ...] come to stand in chunks, [B, N * c, ...], and outputs of chunks become outputs of steps."""

    length: int
    chunks: int
    size: int
    source_step: Array | None  # [N * c], the step at each place; None if places and steps coincide
    is_step: Array | None  # [N * c], False where a place holds no step
    place: Array | None  # [T], where each step stands
    sequences: Array | None  # [N], the sequence that each chunk belongs to

    def place_steps(self, steps: Steps) -> Steps:
        """The steps in their places [B, N * c, ...]; those that hold none hand on the state and do nothing else."""
        placed = Steps(*(self._place(array) for array in steps))
        is_step = self.is_step
        if is_step is None:
            if self.chunks * self.size == self.length:
                return placed
            is_step = places(self.chunks * self.size) < self.length
        eye = jnp.eye(steps.transition.shape[-1], dtype=steps.transition.dtype)
        return placed._replace(transition=jnp.where(is_step[None, :, None, None], placed.transition, eye[None, None]))

    def take_steps(self, output: Array) -> Array:
        """Outputs of the steps [B, T, ...] from those of all places."""
        return output[:, : self.length] if self.place is None else jnp.take(output, self.place, axis=1)

    def _place(self, array: Array) -> Array:
        if self.source_step is None or self.is_step is None:
            missing = self.chunks * self.size - self.length
            return jnp.pad(array, [(0, 0), (0, missing), *((0, 0),) * (array.ndim - 2)]) if missing else array
        is_step = self.is_step.reshape(1, -1, *(1,) * (array.ndim - 2))
        return jnp.where(is_step, jnp.take(array, self.source_step, axis=1), jnp.zeros((), array.dtype))


def plain_layout(length: int, size: int, together: int) -> Layout:
    """One sequence in chunks of `size` steps, in whole segments of `together` chunks where it needs several."""
    return Layout(length, _whole_segments(-(-length // size), together), size, None, None, None, None)


def packed_layout(length: int, size: int, together: int, bounds: Array) -> Layout:
    """Packed sequences with the given boundaries [S+1], alike; length >= 1."""
    packed = bounds.shape[0] - 1
    starts, lengths = bounds[:-1], bounds[1:] - bounds[:-1]
    count = _whole_segments(min(length, (length + packed * (size - 1)) // size), together)
    ends = jnp.cumsum((lengths + size - 1) // size, dtype=jnp.int32)
    chunk_bounds = jnp.concatenate([jnp.zeros_like(ends[:1]), ends])
    chunks = places(count)
    sequences = sequence_of(chunks, chunk_bounds)
    within = ((chunks - chunk_bounds[sequences]) * size)[:, None] + places(size)[None, :]
    # Chunks beyond the last one that is needed count as an idle continuation of the last sequence.
    is_step = (within < lengths[sequences][:, None]).reshape(-1)
    source_step = jnp.minimum(starts[sequences][:, None] + within, length - 1).reshape(-1)
    steps = places(length)
    owner = sequence_of(steps, bounds)
    place = chunk_bounds[owner] * size + steps - starts[owner]
    return Layout(length, count, size, source_step, is_step, place, sequences)


def _whole_segments(count: int, together: int) -> int:
    return count if count <= together else -(-count // together) * together
