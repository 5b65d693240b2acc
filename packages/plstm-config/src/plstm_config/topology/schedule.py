"""The order in which edges can be computed: level by level, each level at once."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from plstm_config.topology.edges import Index, as_pairs, offsets

_MANY = 32


@dataclass(frozen=True, eq=False)
class LevelSchedule:
    """Edges and line edges grouped by level: whatever enters an edge comes from lower levels.

    Attributes:
        levels: level of each edge, the length of the longest path in the line graph that ends in it [E].
        edges: indices of the edges, level by level, rising within a level [E].
        edge_ptr: level k has the entries from `edge_ptr[k]` up to, not including, `edge_ptr[k+1]` of `edges` [K+1].
        lines: indices of the line edges by the level of the edge they lead to, rising within a level [L].
        line_ptr: level k has the entries from `line_ptr[k]` up to `line_ptr[k+1]` of `lines`; none at level 0 [K+1].
    """

    levels: Index
    edges: Index
    edge_ptr: Index
    lines: Index
    line_ptr: Index

    @property
    def num_levels(self) -> int:
        """K, the number of levels."""
        return len(self.edge_ptr) - 1


def level_schedule(num_edges: int, line_edges: Any) -> LevelSchedule:
    """Group edges by level.

    Args:
        num_edges: E.
        line_edges: integer pairs (earlier, later) of edges in topological order [L,2].

    Returns:
        The schedule.

    Raises:
        TypeError: if the pairs are not integers.
        ValueError: if their shape is not [L,2].

    Examples:
        >>> from plstm_config.topology import level_schedule
        >>> schedule = level_schedule(3, [(0, 2), (1, 2)])
        >>> schedule.levels.tolist(), schedule.num_levels
        ([0, 0, 1], 2)
    """
    pairs = as_pairs("line_edges", line_edges)
    levels = edge_levels(num_edges, pairs)
    num_levels = int(levels.max()) + 1 if num_edges else 0
    reached = levels[pairs[:, 1]]
    return LevelSchedule(
        levels=levels,
        edges=np.argsort(levels, kind="stable"),
        edge_ptr=offsets(np.bincount(levels, minlength=num_levels)),
        lines=np.argsort(reached, kind="stable"),
        line_ptr=offsets(np.bincount(reached, minlength=num_levels)),
    )


def edge_levels(num_edges: int, line_edges: Index) -> Index:
    """Length of the longest path in the line graph that ends in each edge.

    Args:
        num_edges: E.
        line_edges: pairs (earlier, later) of edges in topological order [L,2].

    Returns:
        The levels [E].
    """
    sources = line_edges[np.argsort(line_edges[:, 1], kind="stable"), 0]
    bounds = offsets(np.bincount(line_edges[:, 1], minlength=num_edges)).tolist()
    result, levels = np.zeros(num_edges, np.int64), [0] * num_edges  # the list is faster for a few predecessors
    for edge, (start, stop) in enumerate(pairwise(bounds)):
        if stop == start:
            continue
        if stop - start > _MANY:
            level = 1 + int(result[sources[start:stop]].max())
        else:
            level = 1 + max([levels[earlier] for earlier in sources[start:stop].tolist()])
        result[edge] = levels[edge] = level
    return result
