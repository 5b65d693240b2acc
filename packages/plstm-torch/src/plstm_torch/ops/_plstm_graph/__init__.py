"""The pLSTM on directed acyclic graphs; README.md beside this file derives the forms."""

from plstm_torch.ops._plstm_graph.op import plstm_graph as plstm_graph

__all__ = ["plstm_graph"]
