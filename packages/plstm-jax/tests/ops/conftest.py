"""Random arguments of the ops. The files of this folder use each other's helpers; it is no package."""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from plstm_config.shapes import PLSTM_1D, PLSTM_2D, PLSTM_2D_ORIENTED

sys.path.insert(0, str(Path(__file__).parent))

LAYOUTS = {"plstm_1d": PLSTM_1D, "plstm_2d": PLSTM_2D, "plstm_2d_oriented": PLSTM_2D_ORIENTED}
MATRICES = {"JQ": 1, "JK": 2, "JV": 1, "JT": 2, "JO": 2}


@pytest.fixture
def draw():
    """Arguments of an op by name, with transitions of either sign and exact zeros among them."""

    def arguments(op, dtype="float64", seed=0, without=(), **sizes):
        random = np.random.default_rng(seed)
        sizes = {"B": 2, "O": 4, "DK": 3, "DV": 2} | dict.fromkeys(MATRICES, 1) | sizes
        drawn = {}
        for name, layout in LAYOUTS[op].items():
            array = random.uniform(-0.7, 0.7, [sizes[letter] for letter in layout])
            if name.startswith("transition"):
                array[random.random(array.shape) < 0.2] = 0.0
            drawn[name] = None if name in without else jnp.asarray(array, dtype)
        return drawn

    return arguments
