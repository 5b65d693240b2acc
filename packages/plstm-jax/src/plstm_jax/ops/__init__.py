"""The pLSTM operations as pure functions of arrays."""

from plstm_jax.ops._plstm_1d import plstm_1d, plstm_1d_step
from plstm_jax.ops._plstm_2d import plstm_2d, plstm_2d_oriented
from plstm_jax.ops._plstm_graph import GraphPlan, plan_graph, plstm_graph

__all__ = ["GraphPlan", "plan_graph", "plstm_1d", "plstm_1d_step", "plstm_2d", "plstm_2d_oriented", "plstm_graph"]
