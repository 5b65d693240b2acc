"""pLSTM on a grid."""

from plstm_jax.ops._plstm_2d.op import plstm_2d, plstm_2d_oriented

__all__ = ["plstm_2d", "plstm_2d_oriented"]
