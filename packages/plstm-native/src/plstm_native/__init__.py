"""pLSTM's kernels for CPUs, in C, for any framework: they are compiled on the machine that runs them.

`unavailable` says whether there are any; a backend calls them with the addresses of its arrays. Everything that belongs
to a framework, such as automatic differentiation, is the backend's.
"""

from plstm_native.build import CompilationError, library, scalar_only, unavailable
from plstm_native.graph import GraphSizes, graph_forward, graph_gradients
from plstm_native.grid import (
    GATES,
    MODES,
    GridSizes,
    gates_of,
    grid_forward,
    grid_gradients,
    grid_marks,
    grid_mask,
    grid_mask_gradients,
    lanes,
)
from plstm_native.sequence import SequenceSizes, sequence_forward, sequence_gradients
from plstm_native.version import __version__
from plstm_native.xla import xla_handlers, xla_lanes

__all__ = [
    "GATES",
    "MODES",
    "CompilationError",
    "GraphSizes",
    "GridSizes",
    "SequenceSizes",
    "__version__",
    "gates_of",
    "graph_forward",
    "graph_gradients",
    "grid_forward",
    "grid_gradients",
    "grid_marks",
    "grid_mask",
    "grid_mask_gradients",
    "lanes",
    "library",
    "scalar_only",
    "sequence_forward",
    "sequence_gradients",
    "unavailable",
    "xla_handlers",
    "xla_lanes",
]
