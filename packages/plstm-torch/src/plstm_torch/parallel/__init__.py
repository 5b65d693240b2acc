"""pLSTM on what is spread over several devices: every rank holds a piece; README.md has the equations."""

from plstm_torch.parallel.context_parallel import context_parallel as context_parallel
from plstm_torch.parallel.cutting import split_grid as split_grid
from plstm_torch.parallel.cutting import split_sequence as split_sequence
from plstm_torch.parallel.plstm_1d import plstm_1d as plstm_1d
from plstm_torch.parallel.plstm_2d import plstm_2d as plstm_2d
from plstm_torch.parallel.plstm_2d import plstm_2d_oriented as plstm_2d_oriented

__all__ = [
    "context_parallel",
    "plstm_1d",
    "plstm_2d",
    "plstm_2d_oriented",
    "split_grid",
    "split_sequence",
]
