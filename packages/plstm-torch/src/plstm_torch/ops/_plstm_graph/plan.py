"""What can be computed level by level: index tensors of a topology, made once and kept with it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from plstm_config.topology.arrays import IndexArrays, index_arrays
from plstm_torch.constants import Kept, constant, keep, make_apart
from plstm_torch.ops._plstm_graph.layout import DenseLayout, compute_layout
from plstm_torch.ops._plstm_graph.native_indices import NativeIndices
from plstm_torch.ops._plstm_graph.triton.indices import KernelIndices, kernel_indices


@dataclass(frozen=True, eq=False)
class LevelSchedule:
    """The edges sorted by level, the line edges sorted by where they lead.

    Attributes:
        tail: node where each edge starts, by level [E].
        head: node where each edge ends, by level [E].
        edges: index into the topology's edges, by level [E]; None if they are sorted by level already.
        positions: inverse of `edges`, None alike.
        lines: index into the topology's line edges, sorted by outgoing edge [L]; None if they are sorted already.
        incoming: edge (by level) where each line edge comes from [L].
        outgoing: edge (by level) where it leads, not decreasing [L].
        by_incoming: the line edges sorted by `incoming` [L].
        levels: first edge of every level, and E.
        lines_into: first line edge that leads to each edge, and L.
        lines_out_of: place in `by_incoming` of the first line edge that leaves each edge, and L.
        graph: number of the graph that each node belongs to [N].
        indices: tail, head, incoming and outgoing as numpy arrays.
        max_edges: edges of the largest graph.
    """

    tail: Tensor
    head: Tensor
    edges: Tensor | None
    positions: Tensor | None
    lines: Tensor | None
    incoming: Tensor
    outgoing: Tensor
    by_incoming: Tensor
    levels: list[int]
    lines_into: np.ndarray
    lines_out_of: np.ndarray
    graph: np.ndarray
    indices: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    max_edges: int

    @cached_property
    def dense(self) -> DenseLayout:
        """The layout for one triangular solve per graph."""
        return self._made(lambda: compute_layout(self.graph, *self.indices, self.tail.device))

    @cached_property
    def kernels(self) -> KernelIndices:
        """Groups of edges and line edges for the kernels."""
        lines = self.lines_into, self.lines_out_of
        return self._made(lambda: kernel_indices(self.graph, *self.indices[:2], lines, self.tail.device))

    @cached_property
    def native(self) -> NativeIndices:
        """Everything as the kernels for CPUs take it."""
        return NativeIndices(self)

    def _made(self, make: Callable[[], Kept]) -> Kept:
        """What is made of constants, kept by this schedule."""
        # a schedule that belongs to a mode is not kept, and so needs constants of that mode
        return make() if isinstance(self.tail, FakeTensor) else make_apart(make)

    def blocks(self, size: int) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
        """Cut the edges into blocks for which one pass of every kind stays small.

        Args:
            size: edges in a block, at least 1.

        Yields:
            Start and end of a block, and the starts and ends of the levels in it (of parts of a level that is larger).
        """
        block: list[tuple[int, int]] = []
        for first, last in zip(self.levels, self.levels[1:], strict=False):
            for start in range(first, last, size):
                end = min(start + size, last)
                if block and end - block[0][0] > size:
                    yield block[0][0], block[-1][1], block
                    block = []
                block.append((start, end))
        if block:
            yield block[0][0], block[-1][1], block


_KNOWN: WeakKeyDictionary[Any, dict[Hashable, LevelSchedule]] = WeakKeyDictionary()


def level_schedule(topology: Any, num_nodes: int, device: torch.device) -> LevelSchedule:
    """The schedule of a topology on a device; checked and computed once for each if it can be weakly referenced.

    A topology need not know how many nodes there are; one that serves several numbers has a schedule for each.

    Raises:
        TypeError: if the indices are no integers.
        ValueError: if they are no DAG in topological order.
    """
    try:
        known = _KNOWN.setdefault(topology, {})
    except TypeError:  # a tuple, say: nothing to tie the schedule to
        known = {}
    return keep(known, (num_nodes, device), lambda: _sorted_by_level(index_arrays(topology, num_nodes), device))


def _sorted_by_level(graph: IndexArrays, device: torch.device) -> LevelSchedule:
    order = graph.schedule.edges
    positions = np.empty_like(order)
    positions[order] = np.arange(len(order))
    tail, head = graph.edges[order].T
    incoming, outgoing = positions[graph.line_edges].T
    lines = np.argsort(outgoing, kind="stable")
    incoming, outgoing = incoming[lines], outgoing[lines]

    def tensor(array: np.ndarray) -> Tensor:
        return constant(array, device)

    def permutation(array: np.ndarray, other: np.ndarray) -> Tensor | None:
        return None if np.array_equal(array, np.arange(len(array))) else tensor(other)

    every = np.arange(len(order) + 1)
    by_incoming = np.argsort(incoming, kind="stable")
    return LevelSchedule(
        tail=tensor(tail),
        head=tensor(head),
        edges=permutation(order, order),
        positions=permutation(order, positions),
        lines=permutation(lines, lines),
        incoming=tensor(incoming),
        outgoing=tensor(outgoing),
        by_incoming=tensor(by_incoming),
        levels=graph.schedule.edge_ptr.tolist(),
        lines_into=np.searchsorted(outgoing, every),
        lines_out_of=np.searchsorted(incoming[by_incoming], every),
        graph=graph.node_graph,
        indices=(tail, head, incoming, outgoing),
        max_edges=int(np.bincount(graph.edge_graph).max(initial=0)),
    )
