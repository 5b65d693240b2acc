"""What every implementation of the 1D op works on."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from plstm_jax.ops.arrays import contract


class Steps(NamedTuple):
    """The arrays of the op [B, T, ...] in the compute dtype; mark and direct are scaled."""

    query: Array
    key: Array
    value: Array
    source: Array
    transition: Array
    mark: Array
    direct: Array

    @property
    def is_scalar(self) -> bool:
        """Whether all state-tracking dimensions are one."""
        return self.source.shape[-3:] == self.mark.shape[-3:] == (1, 1, 1)


class Problem(NamedTuple):
    """One call of the op, after validation.

    `states` holds one state per packed sequence, [S, B, DK, JT, DV]; without packing S is one and `bounds` is None.
    """

    steps: Steps
    states: Array
    bounds: Array | None  # [S+1], the first step of each sequence, and T


Result = tuple[Array, Array]  # output [B, T, DV, JO], states [S, B, DK, JT, DV] after the last steps


def sequence_of(places: Array, bounds: Array) -> Array:
    """The packed sequence that each place belongs to; empty sequences own no place."""
    found = jnp.searchsorted(bounds[1:], places, side="right")
    return jnp.minimum(found, bounds.shape[0] - 2)


def read_state(query: Array, mark: Array, state: Array) -> Array:
    """Q M C: query [..., DK, JQ], mark [..., JO, JQ, JT], state [..., DK, JT, DV] to [..., DV, JO]."""
    seen = contract("...dq,...dte->...qte", query, state)
    return contract("...oqt,...qte->...eo", mark, seen)


def skip(query: Array, key: Array, value: Array, direct: Array) -> Array:
    """Q D (K ⊗ V): what a step's own input gives its output, [..., DV, JO]."""
    scores = contract("...dq,...dk->...qk", query, key)
    weights = contract("...qk,...oqkv->...ov", scores, direct)
    return contract("...ov,...ev->...eo", weights, value)


def move_state(transition: Array, state: Array) -> Array:
    """T C: transition [..., JT, JT], state [..., DK, JT, DV]."""
    return contract("...ts,...dse->...dte", transition, state)


def write_state(key: Array, value: Array, source: Array) -> Array:
    """S (K ⊗ V): [..., DK, JT, DV]."""
    sent = contract("...tkv,...ev->...kte", source, value)
    return contract("...dk,...kte->...dte", key, sent)


def state_at(states: Array, sequence: Array | None) -> Array:
    """The state of one sequence out of the states of all, [B, DK, JT, DV]."""
    if sequence is None:
        return states[0]
    return lax.dynamic_index_in_dim(states, sequence, 0, keepdims=False)


def with_state(states: Array, sequence: Array | None, state: Array) -> Array:
    """All states with that of one sequence replaced."""
    if sequence is None:
        return state[None]
    return lax.dynamic_update_index_in_dim(states, state, sequence, 0)
