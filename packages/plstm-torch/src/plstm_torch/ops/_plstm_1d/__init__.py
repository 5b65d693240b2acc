"""The pLSTM on a sequence; README.md beside this file derives the forms."""

from plstm_torch.ops._plstm_1d.op import plstm_1d as plstm_1d
from plstm_torch.ops._plstm_1d.step import plstm_1d_step as plstm_1d_step

__all__ = ["plstm_1d", "plstm_1d_step"]
