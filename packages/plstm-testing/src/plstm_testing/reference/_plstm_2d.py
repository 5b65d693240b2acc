"""pLSTM on a grid, one orientation: states run to the right (X) and down (Y)."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from plstm_config.shapes import DIRECTED, PLSTM_2D, check_plstm_2d

from ._contractions import MOVE, READ, SKIP, WRITE, Array, default_scale, double

States = tuple[Float[Array, "B Y DK DV JT"], Float[Array, "B X DK DV JT"]]


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
    initial_state: States | None = None,
    return_last_state: bool = False,
    scale: float | None = None,
) -> Float[Array, "B X Y DV JO"] | tuple[Float[Array, "B X Y DV JO"], States]:
    """Run pLSTM over a grid, cell by cell.

    With r arriving from the left neighbour and d from the upper one::

        H     = scale * Q (M_l r + M_u d + D (K ⊗ V))
        r_out = T_rl r + T_ru d + S_r (K ⊗ V)
        d_out = T_du d + T_dl r + S_d (K ⊗ V)

    Args:
        query: [B,X,Y,DK,JQ], any real dtype (computed in float64).
        key: [B,X,Y,DK,JK].
        value: [B,X,Y,DV,JV].
        source_r: source of the edge to the right [B,X,Y,JT,JK,JV].
        source_d: source of the edge down [B,X,Y,JT,JK,JV].
        transition_rl: from left to right [B,X,Y,JT,JT].
        transition_du: from above to below [B,X,Y,JT,JT].
        transition_dl: from left to below [B,X,Y,JT,JT], zero if None.
        transition_ru: from above to the right [B,X,Y,JT,JT], zero if None.
        mark_l: mark of the edge from the left [B,X,Y,JO,JQ,JT].
        mark_u: mark of the edge from above [B,X,Y,JO,JQ,JT].
        direct: [B,X,Y,JO,JQ,JK,JV].
        mode: "P" for directed propagation, where both incoming edges are treated alike: `transition_ru`,
            `transition_dl` and `mark_u` must be None and equal `transition_rl`, `transition_du` and `mark_l`.
        initial_state: states entering over the borders, left [B,Y,DK,DV,JT] and top [B,X,DK,DV,JT]; zero if None.
        return_last_state: also return the states leaving on the right and at the bottom.
        scale: factor of the output; ``DK**-0.5`` if None.

    Returns:
        Output [B,X,Y,DV,JO], or the pair of it and (right [B,Y,DK,DV,JT], bottom [B,X,DK,DV,JT]).

    Raises:
        TypeError: if an argument is no array.
        ValueError: if a shape or the mode is wrong, or a gate does not go with the mode.

    Examples:
        >>> import numpy as np
        >>> from plstm_testing.reference import plstm_2d
        >>> vector, gate = np.ones((2, 5, 7, 4, 1)), np.ones((2, 5, 7, 1, 1, 1))
        >>> transitions = dict.fromkeys(("transition_rl", "transition_du"), np.full((2, 5, 7, 1, 1), 0.4))
        >>> gates = {"source_r": gate, "source_d": gate, "mark_l": gate, "direct": gate[..., None]}
        >>> plstm_2d(vector, vector, vector, **gates, **transitions, mode="P").shape
        (2, 5, 7, 4, 1)

    Source:
        Equations 5 and 6 of the pLSTM paper, on a grid.
    """
    transitions = (transition_rl, transition_du, transition_dl, transition_ru)
    arrays = (query, key, value, source_r, source_d, *transitions, mark_l, mark_u, direct)
    run = _forward(arrays, initial_state, scale, mode)
    return (run.output, (run.r[:, -1], run.d[:, :, -1])) if return_last_state else run.output


def plstm_2d_gradients(
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
    cotangent: Float[Array, "B X Y DV JO"],
    cotangent_state: States | None = None,
    initial_state: States | None = None,
    scale: float | None = None,
) -> dict[str, Array | States]:
    """Gradients of ``sum(output * cotangent) + sum(last_state * cotangent_state)``: the cells in reverse order.

    Args:
        query: as in `plstm_2d`, like every argument that is not explained here.
        key: see `plstm_2d`.
        value: see `plstm_2d`.
        source_r: see `plstm_2d`.
        source_d: see `plstm_2d`.
        transition_rl: see `plstm_2d`.
        transition_du: see `plstm_2d`.
        transition_dl: see `plstm_2d`.
        transition_ru: see `plstm_2d`.
        mark_l: see `plstm_2d`.
        mark_u: see `plstm_2d`.
        direct: see `plstm_2d`.
        mode: see `plstm_2d`.
        cotangent: weights of the output [B,X,Y,DV,JO].
        cotangent_state: weights of (right, bottom), zero if None.
        initial_state: see `plstm_2d`.
        scale: see `plstm_2d`.

    Returns:
        Gradient by argument name, `initial_state` (a pair) always among them. Each name counts as an argument of its
        own, also where the same array is passed twice; a transition left out as None has its gradient at zero. With
        mode "P" a gate that serves in two places has the sum of both gradients, and those left out have none.

    Raises:
        TypeError: if an argument is no array.
        ValueError: if a shape or the mode is wrong, or a gate does not go with the mode.
    """
    transitions = (transition_rl, transition_du, transition_dl, transition_ru)
    arrays = (query, key, value, source_r, source_d, *transitions, mark_l, mark_u, direct)
    run = _forward(arrays, initial_state, scale, mode)
    # the gradients of r and d live where r and d do: entry x belongs to the edge that enters column x
    dr, dd = np.zeros_like(run.r), np.zeros_like(run.d)
    if cotangent_state is not None:
        dr[:, -1], dd[:, :, -1] = double(cotangent_state[0]), double(cotangent_state[1])
    gradients: dict[str, Any] = {name: np.zeros_like(array) for name, array in zip(PLSTM_2D, run.arrays, strict=True)}
    weights = run.scale * double(cotangent)
    for x in reversed(range(query.shape[1])):
        for y in reversed(range(query.shape[2])):
            found = _cell_gradients(run, x, y, weights[:, x, y], dr, dd)
            for name, gradient in zip(PLSTM_2D, found, strict=True):
                gradients[name][:, x, y] = gradient
    gradients["initial_state"] = (dr[:, 0], dd[:, :, 0])
    if mode == "P":
        for left_out, serving in DIRECTED.items():
            gradients[serving] += gradients.pop(left_out)
    return gradients


class _Run(NamedTuple):
    arrays: tuple[Array, ...]
    scale: float
    output: Array
    r: Array  # [B,X+1,Y,DK,DV,JT]: entry x enters column x from the left
    d: Array  # [B,X,Y+1,DK,DV,JT]: entry y enters row y from above


def _forward(arrays: tuple[Array | None, ...], initial_state: States | None, scale: object, mode: str | None) -> _Run:
    arguments = dict(zip(PLSTM_2D, arrays, strict=True))
    sizes = check_plstm_2d(**arguments, initial_state=initial_state, scale=scale, mode=mode)
    if mode == "P":
        arguments |= {left_out: arguments[serving] for left_out, serving in DIRECTED.items()}
    zero = np.zeros([sizes[letter] for letter in PLSTM_2D["transition_dl"]])
    doubles = tuple(zero if array is None else double(array) for array in arguments.values())
    q, k, v, s_r, s_d, t_rl, t_du, t_dl, t_ru, m_l, m_u, direct = doubles
    factor = default_scale(scale, sizes["DK"])
    state = [sizes[letter] for letter in ("DK", "DV", "JT")]
    r = np.zeros([sizes["B"], sizes["X"] + 1, sizes["Y"], *state])
    d = np.zeros([sizes["B"], sizes["X"], sizes["Y"] + 1, *state])
    if initial_state is not None:
        r[:, 0], d[:, :, 0] = double(initial_state[0]), double(initial_state[1])
    output = np.zeros([sizes[letter] for letter in ("B", "X", "Y", "DV", "JO")])
    for x in range(sizes["X"]):
        for y in range(sizes["Y"]):
            at = np.s_[:, x, y]
            read = READ(q[at], m_l[at], r[at]) + READ(q[at], m_u[at], d[at])
            output[at] = factor * (read + SKIP(q[at], direct[at], k[at], v[at]))
            r[:, x + 1, y] = MOVE(t_rl[at], r[at]) + WRITE(s_r[at], k[at], v[at])
            d[:, x, y + 1] = MOVE(t_du[at], d[at]) + WRITE(s_d[at], k[at], v[at])
            if arguments["transition_ru"] is not None:  # what is left out moves nothing, not even NaN
                r[:, x + 1, y] += MOVE(t_ru[at], d[at])
            if arguments["transition_dl"] is not None:
                d[:, x, y + 1] += MOVE(t_dl[at], r[at])
    return _Run(doubles, factor, output, r, d)


def _cell_gradients(run: _Run, x: int, y: int, weight: Array, dr: Array, dd: Array) -> tuple[Array, ...]:
    """Gradients of the arguments at one cell; adds to the gradients `dr` and `dd` of its two incoming states."""
    at = np.s_[:, x, y]
    q, k, v, s_r, s_d, t_rl, t_du, t_dl, t_ru, m_l, m_u, direct = (array[at] for array in run.arrays)
    r, d, right, down = run.r[at], run.d[at], dr[:, x + 1, y], dd[:, x, y + 1]
    g_rl, from_rl = MOVE.gradients(right, t_rl, r)
    g_ru, from_ru = MOVE.gradients(right, t_ru, d)
    g_du, from_du = MOVE.gradients(down, t_du, d)
    g_dl, from_dl = MOVE.gradients(down, t_dl, r)
    g_sr, k_right, v_right = WRITE.gradients(right, s_r, k, v)
    g_sd, k_down, v_down = WRITE.gradients(down, s_d, k, v)
    q_left, g_ml, from_ml = READ.gradients(weight, q, m_l, r)
    q_up, g_mu, from_mu = READ.gradients(weight, q, m_u, d)
    q_skip, g_direct, k_skip, v_skip = SKIP.gradients(weight, q, direct, k, v)
    dr[at] += from_rl + from_dl + from_ml
    dd[at] += from_du + from_ru + from_mu
    nodes = (q_left + q_up + q_skip, k_right + k_down + k_skip, v_right + v_down + v_skip)
    return (*nodes, g_sr, g_sd, g_rl, g_du, g_dl, g_ru, g_ml, g_mu, g_direct)
