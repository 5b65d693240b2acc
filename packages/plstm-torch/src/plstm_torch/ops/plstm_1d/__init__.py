"""The pLSTM on a sequence; README.md beside this file derives the forms."""

from plstm_torch.ops.plstm_1d.op import plstm_1d as plstm_1d

__all__ = ["plstm_1d"]
