"""pLSTM on a sequence."""

from plstm_jax.ops._plstm_1d.op import plstm_1d
from plstm_jax.ops._plstm_1d.step import plstm_1d_step

__all__ = ["plstm_1d", "plstm_1d_step"]
