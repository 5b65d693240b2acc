"""Pure functions on tensors: the pLSTM recurrences on sequences and grids."""

from plstm_torch.ops.plstm_1d import plstm_1d as plstm_1d
from plstm_torch.ops.plstm_2d import plstm_2d as plstm_2d
from plstm_torch.ops.plstm_2d import plstm_2d_oriented as plstm_2d_oriented

__all__ = ["plstm_1d", "plstm_2d", "plstm_2d_oriented"]
