"""One array under several names: without effect on numbers, whichever the names are."""

from collections.abc import Iterator, Mapping
from functools import cache

from plstm_config.shapes import DIRECTED

from .cases import STATE_TRACKING, grid
from .draws import Case

# What stands under which other name. The sides of the grid below are no multiples of any block.
PATTERNS: Mapping[str, Mapping[str, str]] = {
    "straight": {"transition_du": "transition_rl"},
    "to_the_right": {"transition_ru": "transition_rl"},
    "down": {"transition_dl": "transition_du"},
    "crossed": {"transition_ru": "transition_du", "transition_dl": "transition_rl"},
    "turns": {"transition_dl": "transition_ru"},
    "all_transitions": dict.fromkeys(("transition_du", "transition_dl", "transition_ru"), "transition_rl"),
    "marks": {"mark_u": "mark_l"},
    "sources": {"source_d": "source_r"},
    "marks_and_sources": dict.fromkeys(("source_d", "mark_l", "mark_u"), "source_r"),
    "as_directed": DIRECTED,
    "nodes": {"key": "query", "value": "query"},
}


@cache
def sharing_cases(op: str) -> tuple[Case, ...]:
    """The cases of an op that pass one array under several names.

    Args:
        op: name of the op.

    Returns:
        The cases; none of an op whose arguments are all of different shapes.
    """
    return tuple(_cases(op)) if op in ("plstm_2d", "plstm_2d_oriented") else ()


def _cases(op: str) -> Iterator[Case]:
    oriented = op == "plstm_2d_oriented"
    for name, same in PATTERNS.items():
        yield grid(name, 9, 13, "full", oriented=oriented, batch=1, value_size=3, initial=True, same=same)
    straight = PATTERNS["straight"]
    for mode in ("L", "R", "apart", "P"):
        sides = (13, 9) if mode == "R" else (9, 13)
        yield grid(f"{mode}_straight", *sides, mode, oriented=oriented, batch=1, initial=True, same=straight)
    for name in ("straight", "all_transitions"):
        matrices, same = f"{name}_state_tracking", PATTERNS[name]
        yield grid(matrices, 4, 5, "full", STATE_TRACKING, oriented=oriented, initial=True, same=same, block_size=3)
