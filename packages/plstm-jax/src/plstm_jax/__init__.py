"""pLSTM in pure JAX: parallelizable linear source-transition-mark operations on sequences and images."""

from plstm_jax import functional, ops
from plstm_jax.version import __version__

__all__ = ["__version__", "functional", "ops"]
