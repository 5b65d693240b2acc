"""Where the kernels for CPUs find nodes, edges and line edges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from plstm_torch.ops._plstm_graph.plan import LevelSchedule


class NativeIndices:
    """The indices of a schedule as the kernels take them, int64.

    Attributes:
        arrays: by the kernels' names.
        graphs: number of graphs.
    """

    def __init__(self, schedule: LevelSchedule) -> None:
        tail, head, incoming, outgoing = schedule.indices
        graph = schedule.graph[tail]
        order = np.argsort(graph, kind="stable")  # levels stay in order within a graph
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        self.graphs = int(schedule.graph.max(initial=-1)) + 1
        first = np.searchsorted(graph[order], np.arange(self.graphs + 1))
        named = {"tail": tail, "head": head, "incoming": incoming, "outgoing": outgoing, "order": order, "place": place}
        named |= {"first": first, "into": schedule.lines_into, "out_of": schedule.lines_out_of}
        named |= {"by_incoming": np.argsort(incoming, kind="stable")}
        self.arrays = {name: np.ascontiguousarray(array, np.int64) for name, array in named.items()}

    def addresses(self) -> dict[str, int]:
        """Where they begin."""
        return {name: array.ctypes.data for name, array in self.arrays.items()}
