"""`python -m plstm_linen check` compares every op on this machine with the numpy reference, as plstm_jax does."""

import sys

from plstm_jax.__main__ import main
from plstm_linen.version import __version__

if __name__ == "__main__":
    sys.exit(main(prog="python -m plstm_linen", description="pLSTM in flax.linen", version=__version__))
