"""pLSTM on a directed acyclic graph."""

from plstm_jax.ops._plstm_graph.op import plstm_graph
from plstm_jax.ops._plstm_graph.plan import GraphPlan, plan_graph

__all__ = ["GraphPlan", "plan_graph", "plstm_graph"]
