"""pLSTM on a grid, summed over the four orientations."""

from typing import Any

import numpy as np
from jaxtyping import Float

from plstm_config.shapes import DIRECTED, ORIENTATIONS, PLSTM_2D_ORIENTED, check_plstm_2d_oriented

from ._contractions import Array, double
from ._plstm_2d import plstm_2d, plstm_2d_gradients

States = tuple[Float[Array, "B O Y DK DV JT"], Float[Array, "B O X DK DV JT"]]


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
    initial_state: States | None = None,
    return_last_state: bool = False,
    scale: float | None = None,
) -> Float[Array, "B X Y DV JO"] | tuple[Float[Array, "B X Y DV JO"], States]:
    """Sum `plstm_2d` over four orientations: bit 0 runs X backwards, bit 1 runs Y backwards.

    All arrays stand in image coordinates. "Right" means along the orientation's own X direction, so the state that
    enters "left" enters over the image's right border where X is flipped. Border states are always indexed by the
    image's own Y (left, right) and X (top, bottom).

    Args:
        query: [B,X,Y,DK,JQ], any real dtype (computed in float64).
        key: [B,X,Y,DK,JK].
        value: [B,X,Y,DV,JV].
        source_r: [B,O,X,Y,JT,JK,JV].
        source_d: [B,O,X,Y,JT,JK,JV].
        transition_rl: [B,O,X,Y,JT,JT].
        transition_du: [B,O,X,Y,JT,JT].
        transition_dl: [B,O,X,Y,JT,JT], zero if None.
        transition_ru: [B,O,X,Y,JT,JT], zero if None.
        mark_l: [B,O,X,Y,JO,JQ,JT].
        mark_u: [B,O,X,Y,JO,JQ,JT].
        direct: [B,X,Y,JO,JQ,JK,JV]; counts once, not per orientation.
        mode: none or "P", see `plstm_2d`.
        initial_state: states entering each orientation, left [B,O,Y,DK,DV,JT] and top [B,O,X,DK,DV,JT]; zero if None.
        return_last_state: also return the states leaving each orientation.
        scale: factor of the output; ``DK**-0.5`` if None.

    Returns:
        Output [B,X,Y,DV,JO], or the pair of it and (right [B,O,Y,DK,DV,JT], bottom [B,O,X,DK,DV,JT]).

    Raises:
        TypeError: if an argument is no array.
        ValueError: if a shape or the mode is wrong, or a gate does not go with the mode.

    Examples:
        >>> import numpy as np
        >>> from plstm_testing.reference import plstm_2d_oriented
        >>> vector, direct = np.ones((2, 5, 7, 4, 1)), np.ones((2, 5, 7, 1, 1, 1, 1))
        >>> gates = dict.fromkeys(("source_r", "source_d", "mark_l"), np.ones((2, 4, 5, 7, 1, 1, 1)))
        >>> transitions = dict.fromkeys(("transition_rl", "transition_du"), np.full((2, 4, 5, 7, 1, 1), 0.4))
        >>> plstm_2d_oriented(vector, vector, vector, **gates, **transitions, direct=direct, mode="P").shape
        (2, 5, 7, 4, 1)

    Source:
        Equations 5 and 6 of the pLSTM paper, on the four directed grids of an image.
    """
    transitions = (transition_rl, transition_du, transition_dl, transition_ru)
    arrays = (query, key, value, source_r, source_d, *transitions, mark_l, mark_u, direct)
    arguments = dict(zip(PLSTM_2D_ORIENTED, arrays, strict=True))
    check_plstm_2d_oriented(**arguments, initial_state=initial_state, scale=scale, mode=mode)
    total, rights, bottoms = np.zeros(()), [], []
    for orientation in range(ORIENTATIONS):
        turned = _turn_arguments(arguments, orientation)
        state = _turn_states(initial_state, orientation)
        output, (right, bottom) = plstm_2d(
            **turned, mode=mode, initial_state=state, return_last_state=True, scale=scale
        )
        total = total + turn(output, orientation)
        rights.append(_turn_side(right, orientation & 2))
        bottoms.append(_turn_side(bottom, orientation & 1))
    return (total, (np.stack(rights, axis=1), np.stack(bottoms, axis=1))) if return_last_state else total


def plstm_2d_oriented_gradients(
    *,
    cotangent: Float[Array, "B X Y DV JO"],
    cotangent_state: States | None = None,
    initial_state: States | None = None,
    scale: float | None = None,
    mode: str | None = None,
    **arguments: Array | None,
) -> dict[str, Array | States]:
    """Gradients of ``sum(output * cotangent) + sum(last_state * cotangent_state)``, orientation by orientation.

    Args:
        cotangent: weights of the output [B,X,Y,DV,JO].
        cotangent_state: weights of (right, bottom), zero if None.
        initial_state: see `plstm_2d_oriented`.
        scale: see `plstm_2d_oriented`.
        mode: see `plstm_2d_oriented`.
        **arguments: the arrays of `plstm_2d_oriented` by name.

    Returns:
        Gradient by argument name, as `plstm_2d_gradients`.

    Raises:
        TypeError: if an argument is no array.
        ValueError: if a shape or the mode is wrong, or a gate does not go with the mode.
    """
    arguments = {name: arguments.get(name) for name in PLSTM_2D_ORIENTED}
    sizes = check_plstm_2d_oriented(**arguments, initial_state=initial_state, scale=scale, mode=mode)
    layouts = {name: layout for name, layout in PLSTM_2D_ORIENTED.items() if mode != "P" or name not in DIRECTED}
    shapes = {name: [sizes[letter] for letter in layout] for name, layout in layouts.items()}
    gradients: dict[str, Any] = {name: np.zeros(shape) for name, shape in shapes.items()}
    lefts, tops = [], []
    for orientation in range(ORIENTATIONS):
        found: dict[str, Any] = plstm_2d_gradients(
            **_turn_arguments(arguments, orientation),
            cotangent=turn(double(cotangent), orientation),
            cotangent_state=_turn_states(cotangent_state, orientation),
            initial_state=_turn_states(initial_state, orientation),
            scale=scale,
            mode=mode,
        )
        left, top = found.pop("initial_state")
        lefts.append(_turn_side(left, orientation & 2))
        tops.append(_turn_side(top, orientation & 1))
        for name, gradient in found.items():
            if name == "direct" and orientation > 0:
                continue  # the direct term takes part in the first orientation only
            if "O" in PLSTM_2D_ORIENTED[name]:
                gradients[name][:, orientation] = turn(gradient, orientation)
            else:
                gradients[name] += turn(gradient, orientation)
    gradients["initial_state"] = (np.stack(lefts, axis=1), np.stack(tops, axis=1))
    return gradients


def turn(array: Float[Array, "B X Y ..."], orientation: int) -> Float[Array, "B X Y ..."]:
    """Flip X if bit 0 of `orientation` is set, Y if bit 1 is; its own inverse."""
    if orientation & 1:
        array = array[:, ::-1]
    return array[:, :, ::-1] if orientation & 2 else array


def _turn_side(state: Array, flip: int) -> Array:
    return state[:, ::-1] if flip else state


def _turn_states(states: States | None, orientation: int) -> tuple[Array, Array] | None:
    if states is None:
        return None
    left, top = (double(state)[:, orientation] for state in states)
    return _turn_side(left, orientation & 2), _turn_side(top, orientation & 1)


def _turn_arguments(arguments: dict[str, Any], orientation: int) -> dict[str, Any]:
    turned: dict[str, Any] = {}
    for name, array in arguments.items():
        if array is not None and "O" in PLSTM_2D_ORIENTED[name]:
            array = double(array)[:, orientation]
        turned[name] = None if array is None else turn(double(array), orientation)
    if orientation > 0:
        turned["direct"] = np.zeros_like(turned["direct"])
    return turned
