"""Which edges belong to a node or a graph, and which line edges to an edge, as tensors that kernels read."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from plstm_torch.constants import constant


class KernelIndices(NamedTuple):
    """Groups of edges and line edges in the order of a schedule; group g runs from entry g of `*_ptr` to entry g + 1.

    Attributes:
        lines_into: first line edge that leads to each edge, and L [E+1].
        lines_out_of: place in the schedule's `by_incoming` of the first line edge that leaves each edge, and L [E+1].
        head_ptr: first of the edges into each node, in `by_head` [N+1].
        by_head: the edges sorted by where they end [E].
        tail_ptr: first of the edges out of each node, in `by_tail` [N+1].
        by_tail: the edges sorted by where they start [E].
        graph_ptr: first of the edges of each graph, in `by_graph` [G+1].
        by_graph: the edges sorted by graph, those of a graph in topological order [E].
    """

    lines_into: Tensor
    lines_out_of: Tensor
    head_ptr: Tensor
    by_head: Tensor
    tail_ptr: Tensor
    by_tail: Tensor
    graph_ptr: Tensor
    by_graph: Tensor


def kernel_indices(
    graph: np.ndarray,
    tail: np.ndarray,
    head: np.ndarray,
    lines: tuple[np.ndarray, np.ndarray],
    device: torch.device,
) -> KernelIndices:
    """The groups of a batch of graphs.

    Args:
        graph: number of the graph that each node belongs to [N].
        tail: node where each edge starts [E], edges in a topological order.
        head: node where it ends [E].
        lines: `lines_into` and `lines_out_of` [E+1].
        device: of the tensors.

    Returns:
        The groups.
    """
    num_nodes, num_graphs = len(graph), int(graph.max(initial=-1)) + 1
    groups = ((head, num_nodes), (tail, num_nodes), (graph[tail], num_graphs))
    arrays = [array for group, count in groups for array in _grouped(group, count)]
    return KernelIndices(*(constant(array, device) for array in (*lines, *arrays)))


def _grouped(group: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each group starts among what is sorted by group, and what is sorted."""
    order = np.argsort(group, kind="stable")
    return np.searchsorted(group[order], np.arange(count + 1)), order
