"""The kernels as handlers of XLA's foreign function interface, for frameworks that compile by XLA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from plstm_native.build import xla_library

HANDLERS: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "graph": ("graph_forward", "graph_gradients"),
        "grid": ("grid_forward", "grid_gradients", "grid_mask", "grid_mask_gradients", "grid_marks"),
        "sequence": ("sequence_forward", "sequence_gradients"),
    }
)


def xla_handlers(dtype: str, kernels: str, include: str) -> dict[str, Any]:
    """The functions that XLA calls, to be registered for its CPUs; the first call on a machine compiles them.

    The arrays are those of the functions of the same names in the order in which they stand there, and results without
    an axis of parts: those are added up. Sizes are those of the arrays, and the work is done by XLA's own threads.

    Grids have gates as `gates_of` lists them, and attributes, which are arrays of int64: `mode`, the place of the mode
    in `MODES`, and `flips`, two for each orientation. Behind the arrays of sequences may stand the boundaries of packed
    ones, int32 [B,S+1], which are checked. Behind those of graphs stand `edges` [H,E,2], pairs (tail, head) in
    topological order, `line_edges` [H,L,2], pairs (incoming, outgoing) of edges that meet, in any order, and the graph
    of each node [H,N], all int32 and checked; the attribute `graphs` holds their number. Indices beyond the nodes or
    edges fill up arrays. B and H are at least 1, and indices the same for all of them: partitioners cut arrays alike.

    Args:
        dtype: "float32" or "float64".
        kernels: "grid", "sequence" or "graph".
        include: the folder of XLA's headers, those of the version that is to call the handlers.

    Returns:
        Functions of ctypes by the name of what they compute.

    Raises:
        CompilationError: if there is no compiler, or it fails.
        ValueError: if a name is another one, or the folder holds no headers of XLA.
    """
    library = xla_library(dtype, kernels, include)
    return {name: getattr(library, f"xla_{name}") for name in HANDLERS[kernels]}


def xla_lanes(dtype: str, kernels: str, include: str) -> int:
    """As `lanes`, without a second library; arguments and errors as of `xla_handlers`."""
    return int(xla_library(dtype, kernels, include).vector_lanes())
