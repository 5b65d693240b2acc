"""The operations, which are those of plstm-jax."""

from plstm_jax.ops import *  # noqa: F403
from plstm_jax.ops import __all__ as __all__
