"""pLSTM on a grid."""

from plstm_jax.ops.plstm_2d.interface import plstm_2d, plstm_2d_oriented

__all__ = ["plstm_2d", "plstm_2d_oriented"]
