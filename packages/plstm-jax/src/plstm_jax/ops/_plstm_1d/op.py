"""The public function: checks, dtypes and the choice of an implementation."""

from __future__ import annotations

from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from plstm_config.options import check_cu_seqlens, check_implementation, check_kernels, check_size
from plstm_config.shapes import PLSTM_1D, Sizes, check_plstm_1d
from plstm_jax.ops._plstm_1d.chunkwise import chunkwise, default_chunk_size
from plstm_jax.ops._plstm_1d.native import OP, native, without_native_kernels
from plstm_jax.ops._plstm_1d.problem import Problem, Steps
from plstm_jax.ops._plstm_1d.recurrent import recurrent
from plstm_jax.ops.arrays import compute_dtype, scale_factor, swap_state

IMPLEMENTATIONS = ("auto", "recurrent", "chunkwise", "native")


@overload
def plstm_1d(
    query: Float[Array, "B T DK JQ"],
    key: Float[Array, "B T DK JK"],
    value: Float[Array, "B T DV JV"],
    source: Float[Array, "B T JT JK JV"],
    transition: Float[Array, "B T JT JT"],
    mark: Float[Array, "B T JO JQ JT"],
    direct: Float[Array, "B T JO JQ JK JV"],
    *,
    initial_state: Float[Array, "B *S DK DV JT"] | None = None,
    return_last_state: Literal[False] = False,
    scale: float | Float[Array, ""] | None = None,
    implementation: str = "auto",
    chunk_size: int | None = None,
    cu_seqlens: Int[Array | np.ndarray, " S1"] | None = None,
) -> Float[Array, "B T DV JO"]: ...


@overload
def plstm_1d(
    query: Float[Array, "B T DK JQ"],
    key: Float[Array, "B T DK JK"],
    value: Float[Array, "B T DV JV"],
    source: Float[Array, "B T JT JK JV"],
    transition: Float[Array, "B T JT JT"],
    mark: Float[Array, "B T JO JQ JT"],
    direct: Float[Array, "B T JO JQ JK JV"],
    *,
    initial_state: Float[Array, "B *S DK DV JT"] | None = None,
    return_last_state: Literal[True],
    scale: float | Float[Array, ""] | None = None,
    implementation: str = "auto",
    chunk_size: int | None = None,
    cu_seqlens: Int[Array | np.ndarray, " S1"] | None = None,
) -> tuple[Float[Array, "B T DV JO"], Float[Array, "B *S DK DV JT"]]: ...


def plstm_1d(
    query: Float[Array, "B T DK JQ"],
    key: Float[Array, "B T DK JK"],
    value: Float[Array, "B T DV JV"],
    source: Float[Array, "B T JT JK JV"],
    transition: Float[Array, "B T JT JT"],
    mark: Float[Array, "B T JO JQ JT"],
    direct: Float[Array, "B T JO JQ JK JV"],
    *,
    initial_state: Float[Array, "B *S DK DV JT"] | None = None,
    return_last_state: bool = False,
    scale: float | Float[Array, ""] | None = None,
    implementation: str = "auto",
    chunk_size: int | None = None,
    cu_seqlens: Int[Array | np.ndarray, " S1"] | None = None,
) -> Float[Array, "B T DV JO"] | tuple[Float[Array, "B T DV JO"], Float[Array, "B *S DK DV JT"]]:
    """Run pLSTM along a sequence.

    With C the state before step t::

        H_t = scale * Q_t (M_t C + D_t (K_t ⊗ V_t))
        C  <- T_t C + S_t (K_t ⊗ V_t)

    Computes in float32, or in float64 if an argument has it; the output has the dtype of `value`, the state that of
    the computation. Every argument that is an array of floats may be differentiated, in any mode and to any order.

    Args:
        query: [B,T,DK,JQ], any floating dtype, like all arrays here.
        key: [B,T,DK,JK].
        value: [B,T,DV,JV].
        source: [B,T,JT,JK,JV].
        transition: [B,T,JT,JT], any values, zeros and negative ones among them.
        mark: [B,T,JO,JQ,JT].
        direct: [B,T,JO,JQ,JK,JV].
        initial_state: state before the first step [B,DK,DV,JT], zero if None; [B,S,DK,DV,JT] with `cu_seqlens`.
        return_last_state: also return the state after the last step.
        scale: factor of the output; ``DK**-0.5`` if None.
        implementation: "recurrent" (step by step), "chunkwise" (parallel inside chunks), "native" (compiled kernels
            for CPUs), or "auto".
        chunk_size: steps per chunk of the chunkwise form; chosen by the op if None. No rule binds it to T.
        cu_seqlens: [S+1] boundaries of sequences packed along T, starting at 0, ending at T, not decreasing; each
            starts from its own initial state. The values are checked where they are known: if they are traced, by the
            kernels alone, while they run.

    Returns:
        Output [B,T,DV,JO], or the pair of it and the last state, shaped as `initial_state`.

    Raises:
        TypeError: if an argument is no array, or no array of floats.
        ValueError: if a shape, a boundary or the name of the implementation is wrong, or "native" cannot take the call.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from plstm_jax.ops import plstm_1d
        >>> keys, shape = jax.random.split(jax.random.key(0), 7), (4, 100)
        >>> query, key, value = (jax.random.normal(k, (*shape, 16, 1)) for k in keys[:3])
        >>> source, mark, direct = (jax.random.uniform(k, (*shape, *[1] * n)) for k, n in zip(keys[3:6], (3, 3, 4)))
        >>> transition = jax.random.uniform(keys[6], (*shape, 1, 1))  # the decay of the state from step to step
        >>> output, state = plstm_1d(query, key, value, source, transition, mark, direct, return_last_state=True)
        >>> output.shape, state.shape
        ((4, 100, 16, 1), (4, 16, 16, 1))

    Source:
        Equations 5 and 6 of the pLSTM paper on a chain; the chunkwise form is its appendix B.3 and B.7.
    """
    arrays = (query, key, value, source, transition, mark, direct)
    sizes = check_plstm_1d(*arrays, initial_state=initial_state, scale=scale, cu_seqlens=cu_seqlens)
    check_size("chunk_size", chunk_size)
    implementation = resolve_implementation(implementation, sizes, query)
    bounds = _bounds(cu_seqlens, sizes["T"])
    steps, states = _inputs(arrays, initial_state, scale, sizes)
    if 0 in (sizes["B"], sizes["T"]):  # no step: what enters leaves
        output = jnp.zeros([sizes[letter] for letter in ("B", "T", "DV", "JO")], states.dtype)
    elif implementation == "native":
        enters = initial_state is not None or return_last_state
        output, last = native(steps, states if enters else None, bounds)
        states = states if last is None else last
    else:
        problem = Problem(steps, jnp.moveaxis(swap_state(states), 1, 0), bounds)
        if implementation == "recurrent":
            output, states = recurrent(problem)
        else:
            output, states = chunkwise(problem, chunk_size or default_chunk_size(steps))
        states = swap_state(jnp.moveaxis(states, 0, 1))
    output = output.astype(jnp.result_type(value))
    if not return_last_state:
        return output
    return output, states[:, 0] if cu_seqlens is None else states


def resolve_implementation(implementation: str, sizes: Sizes, query: Any) -> str:
    """The implementation that a call runs; "auto" is decided here and nowhere else.

    Raises:
        ValueError: if a name is none of the implementations, or "native" cannot take the call.
    """
    check_implementation(implementation, IMPLEMENTATIONS)
    if implementation not in ("auto", "native"):
        return implementation
    reason = without_native_kernels(query)
    if implementation == "native":
        check_kernels(OP, implementation, reason)
        return implementation
    if sizes["T"] == 1:  # which is fused with what surrounds it
        return "recurrent"
    return "native" if reason is None else "chunkwise"


def _bounds(cu_seqlens: Any, length: int) -> Array | None:
    if cu_seqlens is None:
        return None
    if not isinstance(cu_seqlens, jax.core.Tracer):
        check_cu_seqlens(cu_seqlens, length)
        return jnp.asarray(cu_seqlens, jnp.int32)
    return jnp.asarray(_narrowed(cu_seqlens), jnp.int32)


def _narrowed(bounds: Array) -> Array:
    """Boundaries cut off where int32 ends: those that are too large stay so, and do not begin anew."""
    if not jnp.issubdtype(bounds.dtype, jnp.integer):
        raise TypeError(f"cu_seqlens: expected integers, got {bounds.dtype}")
    own, narrow = jnp.iinfo(bounds.dtype), jnp.iinfo(jnp.int32)
    if own.min >= narrow.min and own.max <= narrow.max:
        return bounds
    return jnp.clip(bounds, max(int(own.min), int(narrow.min)), min(int(own.max), int(narrow.max)))


def _inputs(arrays: tuple[Any, ...], initial_state: Any, scale: Any, sizes: Sizes) -> tuple[Steps, Array]:
    """The steps in the compute dtype, scaled, and what enters each of the packed sequences [B,S,DK,DV,JT]."""
    dtype = compute_dtype(**dict(zip(PLSTM_1D, arrays, strict=True)), initial_state=initial_state)
    steps = Steps(*(jnp.asarray(array, dtype) for array in arrays))
    factor = scale_factor(scale, sizes["DK"] ** -0.5, dtype)
    # Gates are smaller than queries: scaling them instead saves a copy of the queries, and one of their gradient.
    scaled = (array * factor for array in (steps.mark, steps.direct))
    steps = steps._replace(**dict(zip(("mark", "direct"), scaled, strict=True)))
    shape = [sizes["B"], sizes.get("S", 1), *(sizes[letter] for letter in ("DK", "DV", "JT"))]
    return steps, jnp.zeros(shape, dtype) if initial_state is None else jnp.asarray(initial_state, dtype).reshape(shape)
