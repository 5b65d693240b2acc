"""pLSTM on grids, from one corner or from all four; README.md beside this file derives the forms."""

from plstm_torch.ops._plstm_2d.op import plstm_2d as plstm_2d
from plstm_torch.ops._plstm_2d.op import plstm_2d_oriented as plstm_2d_oriented

__all__ = ["plstm_2d", "plstm_2d_oriented"]
