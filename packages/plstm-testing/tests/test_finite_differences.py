"""Central differences against derivatives that are known."""

import numpy as np

from plstm_testing.finite_differences import directional_derivative, gradient
from plstm_testing.tolerances import assert_close


def test_gradient_of_a_smooth_function():
    point = np.array([[0.3, -0.7], [1.1, 0.2]])
    found = gradient(lambda x: float(np.sum(np.sin(x)) + x[0, 1] * x[1, 0] ** 3), point)
    expected = np.cos(point)
    expected[0, 1] += point[1, 0] ** 3
    expected[1, 0] += 3 * point[0, 1] * point[1, 0] ** 2
    assert_close(found, expected, "float64", "gradient")


def test_directional_derivative_is_the_projected_gradient():
    point, direction = np.array([0.3, -0.7]), np.array([2.0, -1.0])
    found = directional_derivative(lambda x: float(np.exp(x[0]) * x[1]), point, direction)
    expected = np.exp(0.3) * (-0.7 * 2.0 - 1.0)
    assert_close(found, expected, "float64", "gradient")
