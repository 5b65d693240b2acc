"""The kernels as handlers of XLA's foreign function interface, for frameworks that compile by XLA."""

from __future__ import annotations

from typing import Any

from plstm_native.build import xla_library

HANDLERS = ("grid_forward", "grid_gradients", "grid_mask", "grid_mask_gradients")


def xla_handlers(dtype: str, include: str) -> dict[str, Any]:
    """The functions that XLA calls, to be registered for its CPUs; the first call on a machine compiles them.

    The arrays are those of the functions of the same names in the order in which they stand there, gates as
    `gates_of` lists them, and results without an axis of parts: those are added up. Attributes are arrays of int64:
    `mode`, the place of the mode in `MODES`, and `flips`, two for each orientation. Sizes are those of the arrays, and
    the work is done by XLA's own threads.

    Args:
        dtype: "float32" or "float64".
        include: the folder of XLA's headers, those of the version that is to call the handlers.

    Returns:
        Functions of ctypes by the name of what they compute.

    Raises:
        CompilationError: if there is no compiler, or it fails.
        ValueError: if the dtype is another one, or the folder holds no headers of XLA.
    """
    library = xla_library(dtype, include)
    return {name: getattr(library, f"xla_{name}") for name in HANDLERS}


def xla_lanes(dtype: str, include: str) -> int:
    """As `lanes`, without a second library; arguments and errors as of `xla_handlers`."""
    return int(xla_library(dtype, include).vector_lanes())
