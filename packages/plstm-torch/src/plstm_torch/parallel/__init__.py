"""pLSTM on what is spread over several devices: every rank holds a piece; README.md has the equations."""

from plstm_torch.parallel.cutting import split_sequence as split_sequence
from plstm_torch.parallel.plstm_1d import plstm_1d as plstm_1d

__all__ = ["plstm_1d", "split_sequence"]
