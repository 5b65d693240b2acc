"""Logical axes of parameters, and which axes of a mesh they are spread over."""

from __future__ import annotations

from plstm_config.parameters import AXES

LAYERS = "layers"  # the first axis of the arrays of blocks that are held as one


def axis_rules(**mesh_axes: str | tuple[str, ...] | None) -> tuple[tuple[str, str | tuple[str, ...] | None], ...]:
    """Rules from the axes of parameters to those of a mesh, as flax takes them, with an entry for every axis there is.

    Args:
        mesh_axes: axis of the mesh by letter of `plstm_config.parameters.AXES`, or for "layers"; those that are not
            named are not spread. ``axis_rules(F="fsdp")`` spreads all that has features inside of blocks.

    Returns:
        Pairs of names.

    Raises:
        ValueError: if a letter is none of the table.
    """
    known = (*AXES, LAYERS)
    for name in mesh_axes:
        if name not in known:
            raise ValueError(f"mesh_axes: expected names among {', '.join(known)}, got {name!r}")
    return tuple((name, mesh_axes.get(name)) for name in known)
