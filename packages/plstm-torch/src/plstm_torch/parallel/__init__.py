"""pLSTM on what is spread over several devices: every rank holds a piece; README.md has the equations."""

from plstm_torch.parallel.context_parallel import context_parallel as context_parallel
from plstm_torch.parallel.cutting import split_sequence as split_sequence
from plstm_torch.parallel.plstm_1d import plstm_1d as plstm_1d

__all__ = ["context_parallel", "plstm_1d", "split_sequence"]
