"""Both passes of pLSTM on graphs, given where arrays lie in memory."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass

from plstm_native.build import library
from plstm_native.grid import lanes

_WIDE = 4096  # edges of a graph up to which a slice is two vectors wide: more would leave the caches for good


@dataclass(frozen=True)
class GraphSizes:
    """Sizes of a call; every array is contiguous, numbers in one dtype, indices in int64.

    Attributes:
        dtype: "float32" or "float64".
        heads: H.
        nodes: N.
        edges: E.
        lines: L.
        graphs: G, which share no edge.
        largest: edges of the largest graph.
        dk: DK.
        dv: DV.
        threads: how many threads may work.
    """

    dtype: str
    heads: int
    nodes: int
    edges: int
    lines: int
    graphs: int
    largest: int
    dk: int
    dv: int
    threads: int


def graph_forward(sizes: GraphSizes, addresses: Mapping[str, int]) -> None:
    """What the nodes read from the edges, and the states of the edges.

    Args:
        sizes: of the arrays.
        addresses: where they begin.

            Indices are `tail` and `head` [E]; `order` [E], the edges graph by graph, each after those that lead into
            it, its inverse `place` [E] and `first` [G+1], where each graph begins in it; of line edges, sorted by where
            they lead, `incoming` and `outgoing` [L] and `into` [E+1], the first that leads to each edge; `by_incoming`
            [L], line edges sorted by where they come from, and `out_of` [E+1], the first there that leaves each edge.
            Line edges may stand in another order if `by_outgoing` [L] is there, which sorts them by where they lead.

            Read are `query`, `key` [H,N,DK], `value` [H,N,DV], `source` [H,E], `transition` [H,L], `mark` [H,E] and, if
            there, `initial` [H,E,DK,DV]. Written are `read` [H,N,DV], which holds zeros before, and, if there, `states`
            [H,E,DK,DV].

    Raises:
        CompilationError: if there are no kernels here.
        MemoryError: if there is no memory to work with.
    """
    _run("graph_forward", sizes, addresses)


def graph_gradients(sizes: GraphSizes, addresses: Mapping[str, int]) -> None:
    """The gradients of everything that `graph_forward` reads.

    Args:
        sizes: of the arrays.
        addresses: where they begin. Read is what `graph_forward` reads, `d_read` [H,N,DV] and, if there, `d_states`,
            the cotangents of the states. Written are `d_query`, `d_key`, `d_value`, `d_source`, `d_transition` and
            `d_mark`, shaped as what they are of, which hold zeros before, and, if there, `d_initial`.

    Raises:
        CompilationError: if there are no kernels here.
        MemoryError: if there is no memory to work with.
    """
    _run("graph_gradients", sizes, addresses)


_Address = ctypes.c_void_p
_INDICES = (
    "tail",
    "head",
    "order",
    "first",
    "place",
    "into",
    "incoming",
    "by_outgoing",
    "out_of",
    "by_incoming",
    "outgoing",
)
_READ = ("query", "key", "value", "source", "transition", "mark")
_ARRAYS = (
    *(*_INDICES, *_READ, "initial", "read", "states", "d_read", "d_states"),
    *(f"d_{name}" for name in (*_READ, "initial")),
)
_NUMBERS = ("heads", "nodes", "edges", "lines", "graphs", "dk", "dv", "width", "slices", "threads")


class _Graph(ctypes.Structure):
    """The structure of the same name in graph.c."""

    _fields_ = (*((name, ctypes.c_int64) for name in _NUMBERS), *((name, _Address) for name in _ARRAYS))


def _run(function: str, sizes: GraphSizes, addresses: Mapping[str, int]) -> None:
    vector = lanes(sizes.dtype, "graph")
    width = 2 if sizes.dv > vector and sizes.largest <= _WIDE else 1
    call = _Graph(
        heads=sizes.heads, nodes=sizes.nodes, edges=sizes.edges, lines=sizes.lines, graphs=sizes.graphs, dk=sizes.dk,
        dv=sizes.dv, width=width, slices=-(-sizes.dv // (width * vector)), threads=sizes.threads,
    )  # fmt: skip
    for name, address in addresses.items():
        setattr(call, name, address)
    if getattr(library(sizes.dtype, "graph"), function)(ctypes.byref(call)):
        raise MemoryError(f"{function}: there is no memory to work with")
