"""One step of the recurrence: what decoding runs, token by token."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from plstm_config.shapes import PLSTM_1D_STEP, check_plstm_1d_step
from plstm_jax.ops._plstm_1d.problem import move_state, read_state, skip, write_state
from plstm_jax.ops.arrays import compute_dtype, swap_state


def plstm_1d_step(
    query: Float[Array, "B DK JQ"],
    key: Float[Array, "B DK JK"],
    value: Float[Array, "B DV JV"],
    source: Float[Array, "B JT JK JV"],
    transition: Float[Array, "B JT JT"],
    mark: Float[Array, "B JO JQ JT"],
    direct: Float[Array, "B JO JQ JK JV"],
    state: Float[Array, "B DK DV JT"],
    *,
    scale: float | Float[Array, ""] | None = None,
) -> tuple[Float[Array, "B DV JO"], Float[Array, "B DK DV JT"]]:
    """Run one step of `plstm_1d`.

    With C the state before the step::

        H = scale * Q (M C + D (K ⊗ V))        C <- T C + S (K ⊗ V)

    Computes in float32, or in float64 if an argument has it.

    Args:
        query: [B,DK,JQ], any floating dtype, like all arrays here.
        key: [B,DK,JK].
        value: [B,DV,JV].
        source: [B,JT,JK,JV].
        transition: [B,JT,JT].
        mark: [B,JO,JQ,JT].
        direct: [B,JO,JQ,JK,JV].
        state: state before the step [B,DK,DV,JT].
        scale: factor of the output; ``DK**-0.5`` if None.

    Returns:
        Output [B,DV,JO] in the dtype of `value`, and the state after the step in that of the computation.

    Raises:
        TypeError: if an argument is no array, or no array of floats.
        ValueError: if a shape is wrong.

    Examples:
        >>> import jax.numpy as jnp
        >>> from plstm_jax.ops import plstm_1d_step
        >>> vector, source, transition, direct = (jnp.ones((4, *s)) for s in ((16, 1), (1, 1, 1), (1, 1), (1, 1, 1, 1)))
        >>> state = jnp.zeros((4, 16, 16, 1))
        >>> output, state = plstm_1d_step(vector, vector, vector, source, transition, source, direct, state)
        >>> output.shape, state.shape
        ((4, 16, 1), (4, 16, 16, 1))

    Source:
        Equations 5 and 6 of the pLSTM paper on a chain.
    """
    arrays = (query, key, value, source, transition, mark, direct, state)
    sizes = check_plstm_1d_step(*arrays, scale=scale)
    dtype = compute_dtype(**dict(zip(PLSTM_1D_STEP, arrays, strict=True)))
    q, k, v, s, t, m, d, before = (jnp.asarray(array, dtype) for array in arrays)
    factor = jnp.asarray(sizes["DK"] ** -0.5 if scale is None else scale, dtype)
    before = swap_state(before)
    output = read_state(q, factor * m, before) + skip(q, k, v, factor * d)
    after = move_state(t, before) + write_state(k, v, s)
    return output.astype(jnp.result_type(value)), swap_state(after)
