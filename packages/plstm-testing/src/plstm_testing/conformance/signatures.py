"""Names and signatures of the ops, the same in every backend."""

import inspect
from collections.abc import Sequence
from typing import Any

from .adapter import Adapter
from .cases import Topology
from .lacks import PARAMETERS, lacks

__all__ = ["SIGNATURES", "Topology", "check_signature"]

_ARRAYS = ("query", "key", "value")
_STATE = ("initial_state=None", "return_last_state=False", "scale=None", "implementation='auto'")
_GRID = (
    *_ARRAYS,
    "*",
    *("source_r", "source_d", "transition_rl", "transition_du", "transition_dl=None", "transition_ru=None"),
    *("mark_l", "mark_u=None", "direct", "mode=None"),
    *_STATE,
    "block_size=None",
)
_SEQUENCE = (*_ARRAYS, "source", "transition", "mark", "direct")

_STARS: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}

# As Python would write them; a star separates what may be given by position from what needs its name.
SIGNATURES = {
    "plstm_1d_step": (*_SEQUENCE, "state", "*", "scale=None"),
    "plstm_1d": (*_SEQUENCE, "*", *_STATE, "chunk_size=None", "cu_seqlens=None"),
    "plstm_2d": _GRID,
    "plstm_2d_oriented": _GRID,
    "plstm_graph": (*_SEQUENCE, "topology", "*", *_STATE),
}


def check_signature(adapter: Adapter, op: str) -> None:
    """The op exists under its name, with the parameters, kinds and defaults that outside code relies on.

    Parameters that serve what the backend says it lacks may be missing.

    Args:
        adapter: the backend.
        op: name of the op.

    Raises:
        AssertionError: if the op is missing or differs.
    """
    if op not in adapter.ops:
        raise AssertionError(f"{op}: expected the backend {adapter.name!r} to have this op, got {sorted(adapter.ops)}")
    found: list[str] = []
    for parameter in inspect.signature(adapter.ops[op]).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and "*" not in found:
            found.append("*")
        star = _STARS.get(parameter.kind, "")
        default = "" if parameter.default is inspect.Parameter.empty else f"={parameter.default!r}"
        found.append(f"{star}{parameter.name}{default}")
    spared = {name for feature in lacks(adapter) for name in PARAMETERS.get(feature, ())} - set(_names(found))
    expected = [one for one, name in zip(SIGNATURES[op], _names(SIGNATURES[op]), strict=True) if name not in spared]
    if found != expected:
        raise AssertionError(f"{op}: expected ({', '.join(expected)}), got ({', '.join(found)})")


def _names(parameters: Sequence[str]) -> list[str]:
    return [parameter.partition("=")[0] for parameter in parameters]
