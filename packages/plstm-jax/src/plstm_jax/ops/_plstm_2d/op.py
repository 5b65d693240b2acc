"""The two public functions: checks, dtypes and the choice of an implementation."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from plstm_config.options import check_implementation, check_kernels, check_size
from plstm_config.shapes import Sizes, check_plstm_2d, check_plstm_2d_oriented
from plstm_jax.ops._plstm_2d.forms import run_form, suitable_form
from plstm_jax.ops._plstm_2d.native import native, without_native_kernels
from plstm_jax.ops._plstm_2d.problem import FOUR_ORIENTATIONS, ONE_ORIENTATION, Flips, Gates, Problem, Result
from plstm_jax.ops.arrays import compute_dtype, scale_factor, swap_state

IMPLEMENTATIONS = ("auto", "recurrent", "chunkwise", "parallel", "native")


def plstm_2d(
    query: Float[Array, "B X Y DK JQ"],
    key: Float[Array, "B X Y DK JK"],
    value: Float[Array, "B X Y DV JV"],
    *,
    source_r: Float[Array, "B X Y JT JK JV"],
    source_d: Float[Array, "B X Y JT JK JV"],
    transition_rl: Float[Array, "B X Y JT JT"],
    transition_du: Float[Array, "B X Y JT JT"],
    transition_dl: Float[Array, "B X Y JT JT"] | None = None,
    transition_ru: Float[Array, "B X Y JT JT"] | None = None,
    mark_l: Float[Array, "B X Y JO JQ JT"],
    mark_u: Float[Array, "B X Y JO JQ JT"] | None = None,
    direct: Float[Array, "B X Y JO JQ JK JV"],
    mode: str | None = None,
    initial_state: tuple[Float[Array, "B Y DK DV JT"], Float[Array, "B X DK DV JT"]] | None = None,
    return_last_state: bool = False,
    scale: float | Float[Array, ""] | None = None,
    implementation: str = "auto",
    block_size: int | None = None,
) -> (
    Float[Array, "B X Y DV JO"]
    | tuple[Float[Array, "B X Y DV JO"], tuple[Float[Array, "B Y DK DV JT"], Float[Array, "B X DK DV JT"]]]
):
    """Run pLSTM over a grid, rightwards along X and downwards along Y.

    At node (x, y), with r arriving from (x-1, y) and d from (x, y-1)::

        r_out = T_rl r + T_ru d + S_r (K ⊗ V)        d_out = T_du d + T_dl r + S_d (K ⊗ V)
        H     = scale * Q (M_l r + M_u d + D (K ⊗ V))

    Computes in float32, or in float64 if an argument has it; the output has the dtype of `value`, states that of the
    computation. Every argument that is an array may be differentiated, in any mode and to any order. Processing a
    grid in tiles, the states of one entering the next, equals the full pass.

    Args:
        query: [B,X,Y,DK,JQ], any floating dtype, like all arrays here.
        key: [B,X,Y,DK,JK].
        value: [B,X,Y,DV,JV].
        source_r: [B,X,Y,JT,JK,JV].
        source_d: [B,X,Y,JT,JK,JV].
        transition_rl: [B,X,Y,JT,JT]; of the letters, the first says where it goes, the second where it comes from.
        transition_du: [B,X,Y,JT,JT].
        transition_dl: [B,X,Y,JT,JT], or None for zero (D-mode with chirality "L").
        transition_ru: [B,X,Y,JT,JT], or None for zero (D-mode with chirality "R").
        mark_l: [B,X,Y,JO,JQ,JT].
        mark_u: [B,X,Y,JO,JQ,JT]; None with mode "P" only.
        direct: [B,X,Y,JO,JQ,JK,JV].
        mode: none, or "P" for directed propagation: `transition_rl` also acts in the place of `transition_ru`,
            `transition_du` in that of `transition_dl` and `mark_l` in that of `mark_u`, which must be left out. The
            same arrays handed over twice without it give the same numbers by more work.
        initial_state: states entering the grid, left [B,Y,DK,DV,JT] and top [B,X,DK,DV,JT]; zero if None.
        return_last_state: also return the states leaving the grid, (right, bottom), shaped as (left, top).
        scale: factor of the output; ``DK**-0.5`` if None.
        implementation: "recurrent" (antidiagonal by antidiagonal), "chunkwise" (blocks of the grid; time and memory
            linear in its size), "parallel" (the whole grid as one block; quadratic), "native" (compiled kernels for
            CPUs; J dimensions of 1), or "auto".
        block_size: side of the blocks of the chunkwise form; chosen by the op if None. No rule binds it to the grid.

    Returns:
        Output [B,X,Y,DV,JO], or the pair of it and the last states.

    Raises:
        TypeError: if an argument is no array, or no array of floats.
        ValueError: if a shape or a name is wrong, a gate does not go with the mode, or "native" cannot take the call.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from plstm_jax.ops import plstm_2d
        >>> query = key = value = jax.random.normal(jax.random.key(0), (2, 5, 7, 4, 1))
        >>> gate, transition = jnp.ones((2, 5, 7, 1, 1, 1)), jnp.full((2, 5, 7, 1, 1), 0.4)
        >>> output = plstm_2d(
        ...     query, key, value, source_r=gate, source_d=gate, transition_rl=transition, transition_du=transition,
        ...     mark_l=gate, direct=jnp.ones((2, 5, 7, 1, 1, 1, 1)), mode="P",
        ... )
        >>> output.shape
        (2, 5, 7, 4, 1)

    Source:
        Equations 5, 6 and 10 of the pLSTM paper on a grid.
    """
    gates = Gates(source_r, source_d, transition_rl, transition_du, transition_dl, transition_ru, mark_l, mark_u)
    arrays = dict(query=query, key=key, value=value, **gates._asdict(), direct=direct)
    sizes = check_plstm_2d(**arrays, mode=mode, initial_state=initial_state, scale=scale)
    if initial_state is not None:
        left, top = initial_state
        initial_state = jnp.asarray(left)[:, None], jnp.asarray(top)[:, None]
    gates = gates.map(lambda gate: jnp.asarray(gate)[:, None])
    result = _run(
        (query, key, value), gates, direct, ONE_ORIENTATION,
        sizes, initial_state, return_last_state, scale, implementation, block_size,
    )  # fmt: skip
    if not return_last_state:
        return result.output
    return result.output, (swap_state(result.right[:, 0]), swap_state(result.bottom[:, 0]))


def plstm_2d_oriented(
    query: Float[Array, "B X Y DK JQ"],
    key: Float[Array, "B X Y DK JK"],
    value: Float[Array, "B X Y DV JV"],
    *,
    source_r: Float[Array, "B O X Y JT JK JV"],
    source_d: Float[Array, "B O X Y JT JK JV"],
    transition_rl: Float[Array, "B O X Y JT JT"],
    transition_du: Float[Array, "B O X Y JT JT"],
    transition_dl: Float[Array, "B O X Y JT JT"] | None = None,
    transition_ru: Float[Array, "B O X Y JT JT"] | None = None,
    mark_l: Float[Array, "B O X Y JO JQ JT"],
    mark_u: Float[Array, "B O X Y JO JQ JT"] | None = None,
    direct: Float[Array, "B X Y JO JQ JK JV"],
    mode: str | None = None,
    initial_state: tuple[Float[Array, "B O Y DK DV JT"], Float[Array, "B O X DK DV JT"]] | None = None,
    return_last_state: bool = False,
    scale: float | Float[Array, ""] | None = None,
    implementation: str = "auto",
    block_size: int | None = None,
) -> (
    Float[Array, "B X Y DV JO"]
    | tuple[Float[Array, "B X Y DV JO"], tuple[Float[Array, "B O Y DK DV JT"], Float[Array, "B O X DK DV JT"]]]
):
    """Run pLSTM over a grid in four orientations and sum their outputs.

    Orientation o walks X backwards if ``o & 1``, and Y backwards if ``o & 2``; apart from that each is a `plstm_2d`
    with gates of its own. All arrays stand in image coordinates: nothing is to be flipped by the caller.

    Args:
        query: [B,X,Y,DK,JQ], any floating dtype, like all arrays here.
        key: [B,X,Y,DK,JK].
        value: [B,X,Y,DV,JV].
        source_r: [B,O,X,Y,JT,JK,JV] with O = 4, like all gates but `direct`.
        source_d: [B,O,X,Y,JT,JK,JV].
        transition_rl: [B,O,X,Y,JT,JT]; see `plstm_2d` for the letters.
        transition_du: [B,O,X,Y,JT,JT].
        transition_dl: [B,O,X,Y,JT,JT], or None for zero.
        transition_ru: [B,O,X,Y,JT,JT], or None for zero.
        mark_l: [B,O,X,Y,JO,JQ,JT].
        mark_u: [B,O,X,Y,JO,JQ,JT]; None with mode "P" only.
        direct: [B,X,Y,JO,JQ,JK,JV]; counts once, not per orientation.
        mode: none or "P", see `plstm_2d`.
        initial_state: states entering each orientation on its upstream sides, left [B,O,Y,DK,DV,JT] and top
            [B,O,X,DK,DV,JT], along the border in image coordinates; zero if None.
        return_last_state: also return the states leaving each orientation, (right, bottom), shaped as (left, top).
        scale: factor of the output; ``DK**-0.5`` if None.
        implementation: see `plstm_2d`.
        block_size: see `plstm_2d`.

    Returns:
        Output [B,X,Y,DV,JO], or the pair of it and the last states.

    Raises:
        TypeError: if an argument is no array, or no array of floats.
        ValueError: if a shape or a name is wrong, a gate does not go with the mode, or "native" cannot take the call.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from plstm_jax.ops import plstm_2d_oriented
        >>> query = key = value = jax.random.normal(jax.random.key(0), (2, 5, 7, 4, 1))
        >>> gate, transition = jnp.ones((2, 4, 5, 7, 1, 1, 1)), jnp.full((2, 4, 5, 7, 1, 1), 0.4)  # one for each corner
        >>> output = plstm_2d_oriented(
        ...     query, key, value, source_r=gate, source_d=gate, transition_rl=transition, transition_du=transition,
        ...     mark_l=gate, direct=jnp.ones((2, 5, 7, 1, 1, 1, 1)), mode="P",
        ... )
        >>> output.shape
        (2, 5, 7, 4, 1)

    Source:
        Equations 5, 6 and 10 of the pLSTM paper on the four directed grids of an image.
    """
    gates = Gates(source_r, source_d, transition_rl, transition_du, transition_dl, transition_ru, mark_l, mark_u)
    arrays = dict(query=query, key=key, value=value, **gates._asdict(), direct=direct)
    sizes = check_plstm_2d_oriented(**arrays, mode=mode, initial_state=initial_state, scale=scale)
    result = _run(
        (query, key, value), gates, direct, FOUR_ORIENTATIONS,
        sizes, initial_state, return_last_state, scale, implementation, block_size,
    )  # fmt: skip
    if not return_last_state:
        return result.output
    return result.output, (swap_state(result.right), swap_state(result.bottom))


def resolve_implementation(implementation: str, sizes: Sizes, query: Any) -> str:
    """The implementation that a call runs; "auto" is decided here and nowhere else.

    Raises:
        ValueError: if a name is none of the implementations, or "native" cannot take the call.
    """
    check_implementation(implementation, IMPLEMENTATIONS)
    if implementation not in ("auto", "native"):
        return implementation
    reason = without_native_kernels(query, sizes)
    if implementation == "native":
        check_kernels("the 2D op", implementation, reason)
    return "native" if reason is None else suitable_form(sizes["X"], sizes["Y"])


def _run(
    inputs: tuple[Any, Any, Any],
    gates: Gates,
    direct: Any,
    flips: Flips,
    sizes: Sizes,
    initial_state: Any,
    return_last_state: bool,
    scale: Any,
    implementation: str,
    block_size: int | None,
) -> Result:
    check_size("block_size", block_size)
    implementation = resolve_implementation(implementation, sizes, inputs[0])
    states = {} if initial_state is None else {f"initial_state[{i}]": state for i, state in enumerate(initial_state)}
    dtype = compute_dtype(
        **dict(zip(("query", "key", "value"), inputs, strict=True)), **gates._asdict(), direct=direct, **states
    )
    query, key, value = (jnp.asarray(array, dtype) for array in inputs)
    factor = scale_factor(scale, sizes["DK"] ** -0.5, dtype)
    gates = gates.map(lambda gate: jnp.asarray(gate, dtype))
    # Gates are smaller than queries: scaling them instead saves a copy of the queries, and one of their gradient.
    gates = gates._replace(mark_l=gates.mark_l * factor, mark_u=None if gates.mark_u is None else gates.mark_u * factor)
    left, top = (
        jnp.zeros([sizes["B"], len(flips), *(sizes[letter] for letter in (side, "DK", "JT", "DV"))], dtype)
        if initial_state is None
        else swap_state(jnp.asarray(initial_state[index], dtype))
        for index, side in enumerate("YX")
    )
    problem = Problem(
        query,
        key,
        value,
        gates,
        jnp.asarray(direct, dtype) * factor,
        flips,
        left,
        top,
        initial_state is not None or return_last_state,
    )
    x, y = sizes["X"], sizes["Y"]
    if 0 in (x, y, sizes["B"], sizes["DK"], sizes["DV"]):  # no node, or empty states: what enters leaves
        result = Result(jnp.zeros([sizes[letter] for letter in ("B", "X", "Y", "DV", "JO")], dtype), left, top)
    elif implementation == "native":
        result = native(problem)
    else:
        result = run_form(problem, implementation, enters=initial_state is not None, block_size=block_size)
    return result._replace(output=result.output.astype(jnp.result_type(inputs[2])))
