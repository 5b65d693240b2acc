"""The inverse of unit triangular matrices against numpy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plstm_jax.ops._plstm_graph.triangular import inverse_of_unit_lower
from plstm_testing.tolerances import assert_close


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 17, 40])
def test_inverse_and_its_derivative(size):
    random = np.random.default_rng(size)
    strict, direction = (np.tril(0.5 * random.standard_normal((2, 3, size, size)), -1) for _ in range(2))
    expected = np.linalg.inv(np.eye(size) - strict)
    found, tangent = jax.jvp(inverse_of_unit_lower, (jnp.asarray(strict),), (jnp.asarray(direction),))
    assert_close(found, expected)
    assert_close(tangent, expected @ direction @ expected, kind="gradient")


def test_no_matrix_at_all():
    assert inverse_of_unit_lower(jnp.zeros((0, 2, 9, 9))).shape == (0, 2, 9, 9)
