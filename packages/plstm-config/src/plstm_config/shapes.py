"""Argument checks shared by every backend: what the ops accept, in the letters of the dimension legend.

The checks read `.shape` only, so they serve the arrays of every framework alike and disappear under tracing.
"""

from collections.abc import Mapping
from typing import Any

from plstm_config.options import check_cu_seqlens_shape, check_mode, check_scale

Sizes = dict[str, int]
Layout = tuple[str, ...]

ORIENTATIONS = 4

PLSTM_1D: Mapping[str, Layout] = {
    "query": ("B", "T", "DK", "JQ"),
    "key": ("B", "T", "DK", "JK"),
    "value": ("B", "T", "DV", "JV"),
    "source": ("B", "T", "JT", "JK", "JV"),
    "transition": ("B", "T", "JT", "JT"),
    "mark": ("B", "T", "JO", "JQ", "JT"),
    "direct": ("B", "T", "JO", "JQ", "JK", "JV"),
}

PLSTM_1D_STEP: Mapping[str, Layout] = {
    **{name: ("B", *layout[2:]) for name, layout in PLSTM_1D.items()},
    "state": ("B", "DK", "DV", "JT"),
}

PLSTM_2D: Mapping[str, Layout] = {
    "query": ("B", "X", "Y", "DK", "JQ"),
    "key": ("B", "X", "Y", "DK", "JK"),
    "value": ("B", "X", "Y", "DV", "JV"),
    "source_r": ("B", "X", "Y", "JT", "JK", "JV"),
    "source_d": ("B", "X", "Y", "JT", "JK", "JV"),
    "transition_rl": ("B", "X", "Y", "JT", "JT"),
    "transition_du": ("B", "X", "Y", "JT", "JT"),
    "transition_dl": ("B", "X", "Y", "JT", "JT"),
    "transition_ru": ("B", "X", "Y", "JT", "JT"),
    "mark_l": ("B", "X", "Y", "JO", "JQ", "JT"),
    "mark_u": ("B", "X", "Y", "JO", "JQ", "JT"),
    "direct": ("B", "X", "Y", "JO", "JQ", "JK", "JV"),
}

PLSTM_2D_ORIENTED: Mapping[str, Layout] = {
    name: layout if name in ("query", "key", "value", "direct") else ("B", "O", *layout[1:])
    for name, layout in PLSTM_2D.items()
}

PLSTM_GRAPH: Mapping[str, Layout] = {
    "query": ("H", "N", "DK"),
    "key": ("H", "N", "DK"),
    "value": ("H", "N", "DV"),
    "source": ("H", "E"),
    "transition": ("H", "L"),
    "mark": ("H", "E"),
    "direct": ("H", "N"),
}

PLSTM_GRAPH_STATE_TRACKING: Mapping[str, Layout] = {
    "query": ("H", "N", "DK", "JQ"),
    "key": ("H", "N", "DK", "JK"),
    "value": ("H", "N", "DV", "JV"),
    "source": ("H", "E", "JT", "JK", "JV"),
    "transition": ("H", "L", "JT", "JT"),
    "mark": ("H", "E", "JO", "JQ", "JT"),
    "direct": ("H", "N", "JO", "JQ", "JK", "JV"),
}

# Gates that grids of mode "P" do without: each equals the one named here, which serves in both places.
DIRECTED: Mapping[str, str] = {"transition_dl": "transition_du", "transition_ru": "transition_rl", "mark_u": "mark_l"}
# Gates that are zero where they are left out.
OPTIONAL = frozenset({"transition_dl", "transition_ru"})
# Lengths, grids, batches and graphs may be empty, the inner dimensions may not.
_MAY_BE_EMPTY = frozenset({"B", "H", "T", "X", "Y", "N", "E", "L"})


def check_array(name: str, array: Any, layout: Layout, sizes: Sizes) -> None:
    """Check one array against a layout, and learn the sizes of letters that are still unknown.

    Args:
        name: name of the argument, for messages.
        array: anything with a `shape`.
        layout: letters of the dimensions, such as ``("B", "T", "DK", "JQ")``.
        sizes: known size of each letter; extended by what `array` shows first.

    Raises:
        TypeError: if `array` has no shape.
        ValueError: if rank or sizes differ from the layout, or an inner dimension is empty.
    """
    if not hasattr(array, "shape"):
        raise TypeError(f"{name}: expected an array of shape {_describe(layout, sizes)}, got {type(array).__name__}")
    shape = tuple(array.shape)
    if len(shape) != len(layout):
        raise ValueError(f"{name}: expected {_describe(layout, sizes)}, got {shape}")
    for letter, size in zip(layout, shape, strict=True):
        sizes.setdefault(letter, size)
    for letter, size in zip(layout, shape, strict=True):
        if sizes[letter] != size:
            raise ValueError(f"{name}: expected {_describe(layout, sizes)}, got {shape}")
        if letter not in _MAY_BE_EMPTY and size < 1:
            raise ValueError(f"{name}: expected {letter} >= 1 in {_describe(layout, sizes)}, got {shape}")


def check_plstm_1d(
    query: Any,
    key: Any,
    value: Any,
    source: Any,
    transition: Any,
    mark: Any,
    direct: Any,
    *,
    initial_state: Any = None,
    scale: Any = None,
    cu_seqlens: Any = None,
) -> Sizes:
    """Check the arguments of `plstm_1d` by shape.

    Args:
        query: [B,T,DK,JQ].
        key: [B,T,DK,JK].
        value: [B,T,DV,JV].
        source: [B,T,JT,JK,JV].
        transition: [B,T,JT,JT].
        mark: [B,T,JO,JQ,JT].
        direct: [B,T,JO,JQ,JK,JV].
        initial_state: none or [B,DK,DV,JT]; [B,S,DK,DV,JT] with `cu_seqlens`.
        scale: none or a number.
        cu_seqlens: none or [S+1]; its values are left to `check_cu_seqlens`.

    Returns:
        The size of every letter.

    Raises:
        TypeError: if an argument has no shape.
        ValueError: if a shape is wrong; the message names the argument, the expected and the actual shape.
    """
    sizes: Sizes = {}
    arrays = (query, key, value, source, transition, mark, direct)
    for (name, layout), array in zip(PLSTM_1D.items(), arrays, strict=True):
        check_array(name, array, layout, sizes)
    check_scale(scale)
    state: Layout = ("B", "DK", "DV", "JT")
    if cu_seqlens is not None:
        sizes["S"] = check_cu_seqlens_shape(cu_seqlens)
        state = ("B", "S", "DK", "DV", "JT")
    if initial_state is not None:
        check_array("initial_state", initial_state, state, sizes)
    return sizes


def check_plstm_1d_step(
    query: Any,
    key: Any,
    value: Any,
    source: Any,
    transition: Any,
    mark: Any,
    direct: Any,
    state: Any,
    *,
    scale: Any = None,
) -> Sizes:
    """Check the arguments of `plstm_1d_step` by shape.

    Args:
        query: [B,DK,JQ].
        key: [B,DK,JK].
        value: [B,DV,JV].
        source: [B,JT,JK,JV].
        transition: [B,JT,JT].
        mark: [B,JO,JQ,JT].
        direct: [B,JO,JQ,JK,JV].
        state: [B,DK,DV,JT].
        scale: none or a number.

    Returns:
        The size of every letter.

    Raises:
        TypeError: if an argument has no shape.
        ValueError: if a shape is wrong; the message names the argument, the expected and the actual shape.
    """
    sizes: Sizes = {}
    arrays = (query, key, value, source, transition, mark, direct, state)
    for (name, layout), array in zip(PLSTM_1D_STEP.items(), arrays, strict=True):
        check_array(name, array, layout, sizes)
    check_scale(scale)
    return sizes


def check_plstm_2d(
    query: Any,
    key: Any,
    value: Any,
    *,
    source_r: Any,
    source_d: Any,
    transition_rl: Any,
    transition_du: Any,
    transition_dl: Any = None,
    transition_ru: Any = None,
    mark_l: Any,
    mark_u: Any = None,
    direct: Any,
    mode: Any = None,
    initial_state: Any = None,
    scale: Any = None,
) -> Sizes:
    """Check the arguments of `plstm_2d` by shape.

    Args:
        query: [B,X,Y,DK,JQ].
        key: [B,X,Y,DK,JK].
        value: [B,X,Y,DV,JV].
        source_r: [B,X,Y,JT,JK,JV].
        source_d: [B,X,Y,JT,JK,JV].
        transition_rl: [B,X,Y,JT,JT].
        transition_du: [B,X,Y,JT,JT].
        transition_dl: none (zero) or [B,X,Y,JT,JT]; None with mode "P".
        transition_ru: none (zero) or [B,X,Y,JT,JT]; None with mode "P".
        mark_l: [B,X,Y,JO,JQ,JT].
        mark_u: [B,X,Y,JO,JQ,JT]; None with mode "P".
        direct: [B,X,Y,JO,JQ,JK,JV].
        mode: none or "P".
        initial_state: none or the pair left [B,Y,DK,DV,JT], top [B,X,DK,DV,JT].
        scale: none or a number.

    Returns:
        The size of every letter.

    Raises:
        TypeError: if an argument has no shape, or `initial_state` is no pair.
        ValueError: if a shape is wrong, a gate does not go with the mode, or the mode is unknown; the message names the
            argument, what was expected and what came.
    """
    sizes: Sizes = {}
    transitions = (transition_rl, transition_du, transition_dl, transition_ru)
    arrays = (query, key, value, source_r, source_d, *transitions, mark_l, mark_u, direct)
    _check_2d(PLSTM_2D, arrays, sizes, mode)
    check_scale(scale)
    if initial_state is not None:
        _check_border_states(initial_state, ("B",), sizes)
    return sizes


def check_plstm_2d_oriented(
    query: Any,
    key: Any,
    value: Any,
    *,
    source_r: Any,
    source_d: Any,
    transition_rl: Any,
    transition_du: Any,
    transition_dl: Any = None,
    transition_ru: Any = None,
    mark_l: Any,
    mark_u: Any = None,
    direct: Any,
    mode: Any = None,
    initial_state: Any = None,
    scale: Any = None,
) -> Sizes:
    """Check the arguments of `plstm_2d_oriented` by shape.

    Args:
        query: [B,X,Y,DK,JQ]; `key`, `value` and `direct` as in `check_plstm_2d`, too.
        key: see `query`.
        value: see `query`.
        source_r: [B,O,X,Y,JT,JK,JV], O = 4; every other gate but `direct` has the axis O after B, too.
        source_d: see `source_r`.
        transition_rl: see `source_r`.
        transition_du: see `source_r`.
        transition_dl: none (zero), or see `source_r`.
        transition_ru: none (zero), or see `source_r`.
        mark_l: see `source_r`.
        mark_u: see `source_r`; None with mode "P", as the two before it.
        direct: see `query`.
        mode: none or "P".
        initial_state: none or the pair left [B,O,Y,DK,DV,JT], top [B,O,X,DK,DV,JT].
        scale: none or a number.

    Returns:
        The size of every letter.

    Raises:
        TypeError: if an argument has no shape, or `initial_state` is no pair.
        ValueError: if a shape is wrong, a gate does not go with the mode, or the mode is unknown; the message names the
            argument, what was expected and what came.
    """
    sizes: Sizes = {"O": ORIENTATIONS}
    transitions = (transition_rl, transition_du, transition_dl, transition_ru)
    arrays = (query, key, value, source_r, source_d, *transitions, mark_l, mark_u, direct)
    _check_2d(PLSTM_2D_ORIENTED, arrays, sizes, mode)
    check_scale(scale)
    if initial_state is not None:
        _check_border_states(initial_state, ("B", "O"), sizes)
    return sizes


def check_plstm_graph(
    query: Any,
    key: Any,
    value: Any,
    source: Any,
    transition: Any,
    mark: Any,
    direct: Any,
    topology: Any,
    *,
    initial_state: Any = None,
    scale: Any = None,
) -> Sizes:
    """Check the arguments of `plstm_graph` by shape; with state-tracking dimensions if `query` has one.

    Args:
        query: [H,N,DK], or [H,N,DK,JQ].
        key: [H,N,DK], or [H,N,DK,JK].
        value: [H,N,DV], or [H,N,DV,JV].
        source: [H,E], or [H,E,JT,JK,JV].
        transition: [H,L], or [H,L,JT,JT].
        mark: [H,E], or [H,E,JO,JQ,JT].
        direct: [H,N], or [H,N,JO,JQ,JK,JV].
        topology: has `edges` [E,2] and `line_edges` [L,2]; if it has `num_nodes`, this is N.
        initial_state: none, [H,E,DK,DV], or [H,E,DK,DV,JT].
        scale: none or a number.

    Returns:
        The size of every letter.

    Raises:
        TypeError: if an argument has no shape, or `topology` lacks one of its attributes.
        ValueError: if a shape is wrong; the message names the argument, the expected and the actual shape.
    """
    sizes: Sizes = {"2": 2}
    for attribute, letter in (("edges", "E"), ("line_edges", "L")):
        if not hasattr(topology, attribute):
            raise TypeError(f"topology: expected the attributes edges and line_edges, got {type(topology).__name__}")
        check_array(f"topology.{attribute}", getattr(topology, attribute), (letter, "2"), sizes)
    if isinstance(getattr(topology, "num_nodes", None), int):
        sizes["N"] = topology.num_nodes
    state_tracking = len(getattr(query, "shape", ())) == len(PLSTM_GRAPH_STATE_TRACKING["query"])
    layouts = PLSTM_GRAPH_STATE_TRACKING if state_tracking else PLSTM_GRAPH
    arrays = (query, key, value, source, transition, mark, direct)
    for (name, layout), array in zip(layouts.items(), arrays, strict=True):
        check_array(name, array, layout, sizes)
    check_scale(scale)
    if initial_state is not None:
        state: Layout = ("H", "E", "DK", "DV", "JT") if state_tracking else ("H", "E", "DK", "DV")
        check_array("initial_state", initial_state, state, sizes)
    return sizes


def _describe(layout: Layout, sizes: Sizes) -> str:
    letters = (f"{letter}={sizes[letter]}" if letter in sizes and letter != "2" else letter for letter in layout)
    return f"[{', '.join(letters)}]"


def _check_2d(layouts: Mapping[str, Layout], arrays: tuple[Any, ...], sizes: Sizes, mode: Any) -> None:
    check_mode(mode)
    for (name, layout), array in zip(layouts.items(), arrays, strict=True):
        if mode == "P" and name in DIRECTED:
            if array is not None:
                raise ValueError(f"{name}: expected None with mode='P', got {type(array).__name__}")
        elif array is None and name in DIRECTED:
            if name not in OPTIONAL:
                raise ValueError(f"{name}: expected {_describe(layout, sizes)} unless mode='P', got None")
        else:
            check_array(name, array, layout, sizes)


def _check_border_states(initial_state: Any, batch: Layout, sizes: Sizes) -> None:
    if not isinstance(initial_state, tuple | list) or len(initial_state) != 2:
        got = type(initial_state).__name__
        raise TypeError(f"initial_state: expected the pair (left, top), got {got}")
    left, top = initial_state
    check_array("initial_state[0] (left)", left, (*batch, "Y", "DK", "DV", "JT"), sizes)
    check_array("initial_state[1] (top)", top, (*batch, "X", "DK", "DV", "JT"), sizes)
