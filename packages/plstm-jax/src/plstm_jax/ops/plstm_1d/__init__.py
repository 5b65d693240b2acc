"""pLSTM on a sequence."""

from plstm_jax.ops.plstm_1d.interface import plstm_1d

__all__ = ["plstm_1d"]
