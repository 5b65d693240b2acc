"""pLSTM on a sequence."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from plstm_config.options import check_cu_seqlens
from plstm_config.shapes import PLSTM_1D, check_plstm_1d, check_plstm_1d_step

from ._contractions import MOVE, READ, SKIP, WRITE, Array, default_scale, double


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
    scale: float | None = None,
    cu_seqlens: Int[Array, " S1"] | None = None,
) -> Float[Array, "B T DV JO"] | tuple[Float[Array, "B T DV JO"], Float[Array, "B *S DK DV JT"]]:
    """Run pLSTM along a sequence, step by step.

    With C the state before step t::

        H_t = scale * Q_t (M_t C + D_t (K_t ⊗ V_t))
        C  <- T_t C + S_t (K_t ⊗ V_t)

    Args:
        query: [B,T,DK,JQ], any real dtype (computed in float64).
        key: [B,T,DK,JK].
        value: [B,T,DV,JV].
        source: [B,T,JT,JK,JV].
        transition: [B,T,JT,JT].
        mark: [B,T,JO,JQ,JT].
        direct: [B,T,JO,JQ,JK,JV].
        initial_state: state before the first step [B,DK,DV,JT], zero if None; [B,S,DK,DV,JT] with `cu_seqlens`.
        return_last_state: also return the state after the last step.
        scale: factor of the output; ``DK**-0.5`` if None.
        cu_seqlens: [S+1] boundaries of sequences packed along T; each starts from its own initial state.

    Returns:
        Output [B,T,DV,JO], or the pair of it and the last state, shaped as `initial_state`.

    Raises:
        TypeError: if an argument is no array.
        ValueError: if a shape or a boundary is wrong.

    Examples:
        >>> import numpy as np
        >>> from plstm_testing.reference import plstm_1d
        >>> draw = np.random.default_rng(0).uniform
        >>> query, key, value = draw(size=(2, 5, 4, 1)), draw(size=(2, 5, 4, 1)), draw(size=(2, 5, 3, 1))
        >>> source, transition, mark, direct = (draw(size=(2, 5, *[1] * count)) for count in (3, 2, 3, 4))
        >>> plstm_1d(query, key, value, source, transition, mark, direct).shape
        (2, 5, 3, 1)

    Source:
        Equations 5 and 6 of the pLSTM paper, on a chain.
    """
    arrays = (query, key, value, source, transition, mark, direct)
    run = _forward(arrays, initial_state, scale, cu_seqlens)
    if not return_last_state:
        return run.output
    return run.output, run.last if cu_seqlens is not None else run.last[:, 0]


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
    scale: float | None = None,
) -> tuple[Float[Array, "B DV JO"], Float[Array, "B DK DV JT"]]:
    """Run one step of `plstm_1d`: a sequence of length one.

    Args:
        query: [B,DK,JQ], any real dtype (computed in float64).
        key: [B,DK,JK].
        value: [B,DV,JV].
        source: [B,JT,JK,JV].
        transition: [B,JT,JT].
        mark: [B,JO,JQ,JT].
        direct: [B,JO,JQ,JK,JV].
        state: state before the step [B,DK,DV,JT].
        scale: factor of the output; ``DK**-0.5`` if None.

    Returns:
        Output [B,DV,JO], and the state after the step.

    Raises:
        TypeError: if an argument is no array.
        ValueError: if a shape is wrong.

    Examples:
        >>> import numpy as np
        >>> from plstm_testing.reference import plstm_1d_step
        >>> query = key = value = np.ones((2, 4, 1))
        >>> gates = [np.ones((2, *[1] * count)) for count in (3, 2, 3, 4)]
        >>> output, state = plstm_1d_step(query, key, value, *gates, np.zeros((2, 4, 4, 1)))
        >>> output.shape, state.shape
        ((2, 4, 1), (2, 4, 4, 1))

    Source:
        Equations 5 and 6 of the pLSTM paper, on a chain.
    """
    arrays = (query, key, value, source, transition, mark, direct)
    check_plstm_1d_step(*arrays, state, scale=scale)
    run = _forward(tuple(array[:, None] for array in arrays), state, scale, None)
    return run.output[:, 0], run.last[:, 0]


def plstm_1d_gradients(
    query: Float[Array, "B T DK JQ"],
    key: Float[Array, "B T DK JK"],
    value: Float[Array, "B T DV JV"],
    source: Float[Array, "B T JT JK JV"],
    transition: Float[Array, "B T JT JT"],
    mark: Float[Array, "B T JO JQ JT"],
    direct: Float[Array, "B T JO JQ JK JV"],
    *,
    cotangent: Float[Array, "B T DV JO"],
    cotangent_state: Float[Array, "B *S DK DV JT"] | None = None,
    initial_state: Float[Array, "B *S DK DV JT"] | None = None,
    scale: float | None = None,
    cu_seqlens: Int[Array, " S1"] | None = None,
) -> dict[str, Array]:
    """Gradients of ``sum(output * cotangent) + sum(last_state * cotangent_state)``: the same loop, backwards.

    Args:
        query: as in `plstm_1d`, like every argument that is not explained here.
        key: see `plstm_1d`.
        value: see `plstm_1d`.
        source: see `plstm_1d`.
        transition: see `plstm_1d`.
        mark: see `plstm_1d`.
        direct: see `plstm_1d`.
        cotangent: weights of the output [B,T,DV,JO].
        cotangent_state: weights of the last state, zero if None.
        initial_state: see `plstm_1d`.
        scale: see `plstm_1d`.
        cu_seqlens: see `plstm_1d`.

    Returns:
        Gradient by argument name; `initial_state` always among them.

    Raises:
        TypeError: if an argument is no array.
        ValueError: if a shape or a boundary is wrong.

    Examples:
        >>> import numpy as np
        >>> from plstm_testing.reference import plstm_1d_gradients
        >>> draw = np.random.default_rng(0).uniform
        >>> query, key, value = draw(size=(2, 5, 4, 1)), draw(size=(2, 5, 4, 1)), draw(size=(2, 5, 3, 1))
        >>> gates = [draw(size=(2, 5, *[1] * count)) for count in (3, 2, 3, 4)]
        >>> gradients = plstm_1d_gradients(query, key, value, *gates, cotangent=np.ones((2, 5, 3, 1)))
        >>> gradients["transition"].shape
        (2, 5, 1, 1)
    """
    run = _forward((query, key, value, source, transition, mark, direct), initial_state, scale, cu_seqlens)
    q, k, v, s, t, m, d = run.arrays
    gradients = {name: np.zeros_like(array) for name, array in zip(PLSTM_1D, run.arrays, strict=True)}
    weights = run.scale * double(cotangent)
    state_gradient = np.zeros_like(run.last) if cotangent_state is None else double(cotangent_state).copy()
    state_gradient = state_gradient.reshape(run.last.shape)
    for sequence, (start, end) in enumerate(run.segments):
        adjoint = state_gradient[:, sequence]
        for step in reversed(range(start, end)):
            state, now = run.before[step], np.s_[:, step]
            dt, state_moved = MOVE.gradients(adjoint, t[now], state)
            ds, dk_write, dv_write = WRITE.gradients(adjoint, s[now], k[now], v[now])
            dq_read, dm, state_read = READ.gradients(weights[now], q[now], m[now], state)
            dq_skip, dd, dk_skip, dv_skip = SKIP.gradients(weights[now], q[now], d[now], k[now], v[now])
            found = (dq_read + dq_skip, dk_write + dk_skip, dv_write + dv_skip, ds, dt, dm, dd)
            for name, gradient in zip(PLSTM_1D, found, strict=True):
                gradients[name][now] = gradient
            adjoint = state_moved + state_read
        state_gradient[:, sequence] = adjoint
    gradients["initial_state"] = state_gradient if cu_seqlens is not None else state_gradient[:, 0]
    return gradients


def plstm_1d_step_gradients(
    *,
    state: Float[Array, "B DK DV JT"],
    cotangent: Float[Array, "B DV JO"],
    cotangent_state: Float[Array, "B DK DV JT"] | None = None,
    scale: float | None = None,
    **arrays: Array,
) -> dict[str, Array]:
    """Gradients of ``sum(output * cotangent) + sum(state * cotangent_state)`` with the state after the step.

    Args:
        state: see `plstm_1d_step`.
        cotangent: weights of the output [B,DV,JO].
        cotangent_state: weights of the state after the step, zero if None.
        scale: see `plstm_1d_step`.
        **arrays: the other arrays of `plstm_1d_step` by name.

    Returns:
        Gradient by argument name.

    Raises:
        TypeError: if an argument is no array.
        ValueError: if a shape is wrong.
    """
    check_plstm_1d_step(**arrays, state=state, scale=scale)
    sequence = {name: array[:, None] for name, array in arrays.items()}
    found = plstm_1d_gradients(
        **sequence, cotangent=cotangent[:, None], cotangent_state=cotangent_state, initial_state=state, scale=scale
    )
    of_state = found.pop("initial_state")
    return {name: gradient[:, 0] for name, gradient in found.items()} | {"state": of_state}


class _Run(NamedTuple):
    arrays: tuple[Array, ...]
    segments: tuple[tuple[int, int], ...]
    scale: float
    output: Array
    before: list[Array]  # the state before each step
    last: Array  # [B,S,DK,DV,JT]


def _forward(arrays: tuple[Array, ...], initial_state: Array | None, scale: object, cu_seqlens: Array | None) -> _Run:
    sizes = check_plstm_1d(*arrays, initial_state=initial_state, scale=scale, cu_seqlens=cu_seqlens)
    bounds = (0, sizes["T"]) if cu_seqlens is None else check_cu_seqlens(cu_seqlens, sizes["T"])
    segments = tuple(pairwise(bounds))
    factor = default_scale(scale, sizes["DK"])
    doubles = tuple(double(array) for array in arrays)
    q, k, v, s, t, m, d = doubles
    output = np.zeros([sizes[letter] for letter in ("B", "T", "DV", "JO")])
    last = np.zeros([sizes["B"], len(segments), sizes["DK"], sizes["DV"], sizes["JT"]])
    if initial_state is not None:
        last[...] = double(initial_state).reshape(last.shape)
    before: list[Array] = []
    for sequence, (start, end) in enumerate(segments):
        state = last[:, sequence].copy()
        for step in range(start, end):
            now = np.s_[:, step]
            before.append(state)
            output[now] = factor * (READ(q[now], m[now], state) + SKIP(q[now], d[now], k[now], v[now]))
            state = MOVE(t[now], state) + WRITE(s[now], k[now], v[now])
        last[:, sequence] = state
    return _Run(doubles, segments, factor, output, before, last)
