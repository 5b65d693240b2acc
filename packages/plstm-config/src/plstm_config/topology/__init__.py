"""Directed acyclic graphs as index arrays: building, reversing, batching, line graphs, pruning, levels."""

from plstm_config.topology.build import Mode
from plstm_config.topology.dag import DagTopology
from plstm_config.topology.edges import direct_edges
from plstm_config.topology.line_graph import is_multitree, line_graph, prune_to_multitree
from plstm_config.topology.schedule import LevelSchedule, level_schedule

__all__ = [
    "DagTopology",
    "LevelSchedule",
    "Mode",
    "direct_edges",
    "is_multitree",
    "level_schedule",
    "line_graph",
    "prune_to_multitree",
]
