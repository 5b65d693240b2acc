"""Pure functions on tensors: the pLSTM recurrences on sequences, grids and graphs."""

from plstm_torch.ops._plstm_1d import plstm_1d as plstm_1d
from plstm_torch.ops._plstm_1d import plstm_1d_step as plstm_1d_step
from plstm_torch.ops._plstm_2d import plstm_2d as plstm_2d
from plstm_torch.ops._plstm_2d import plstm_2d_oriented as plstm_2d_oriented
from plstm_torch.ops._plstm_graph import plstm_graph as plstm_graph

__all__ = ["plstm_1d", "plstm_1d_step", "plstm_2d", "plstm_2d_oriented", "plstm_graph"]
