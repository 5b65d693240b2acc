"""The operations, which hold no parameters: those of plstm_jax."""

from plstm_jax.ops import plstm_1d, plstm_1d_step, plstm_2d, plstm_2d_oriented, plstm_graph

__all__ = ["plstm_1d", "plstm_1d_step", "plstm_2d", "plstm_2d_oriented", "plstm_graph"]
