"""The recurrence itself, step by step."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax

from plstm_jax.ops._plstm_1d.problem import (
    Problem,
    Result,
    Steps,
    move_state,
    read_state,
    sequence_of,
    skip,
    state_at,
    with_state,
    write_state,
)
from plstm_jax.ops.arrays import places


def recurrent(problem: Problem) -> Result:
    """Scan over the steps; the carry holds the state of every packed sequence."""
    steps = problem.steps
    length = steps.query.shape[1]
    sequences = None if problem.bounds is None else sequence_of(places(length), problem.bounds)

    def step(states: Array, inputs: tuple[Steps, Array | None]) -> tuple[Array, Array]:
        now, sequence = inputs
        state = state_at(states, sequence)
        output = read_state(now.query, now.mark, state)
        state = move_state(now.transition, state) + write_state(now.key, now.value, now.source)
        return with_state(states, sequence, state), output

    by_time = Steps(*(jnp.moveaxis(array, 1, 0) for array in steps))
    states, outputs = lax.scan(step, problem.states, (by_time, sequences))
    output = jnp.moveaxis(outputs, 0, 1) + skip(steps.query, steps.key, steps.value, steps.direct)
    return output, states
