"""`python -m plstm_nnx check` compares the operations on this machine with the numpy reference."""

import sys

from plstm_jax.__main__ import main
from plstm_nnx.version import __version__

if __name__ == "__main__":
    sys.exit(main(prog="python -m plstm_nnx", version=__version__, description="pLSTM in flax.nnx"))
