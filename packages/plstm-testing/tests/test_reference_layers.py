"""The reference of gates, projections, transitions, norms and convolutions against golden data."""

import numpy as np
import pytest

from plstm_testing import golden, reference
from plstm_testing.finite_differences import directional_derivative
from plstm_testing.tolerances import assert_close, assert_within, rms

TRANSITION_OPTIONS = (
    "eigenvalue_representation",
    "eigenvalue_factor",
    "normalization_mode",
    "orthogonalization_order",
    "orthogonalization_factor",
)


def evaluate(case, x, parameters):
    """The reference's answer to a golden case of one of the small layers."""
    config = case.config
    if case.kind in ("source", "mark", "direct"):
        return reference.gate(
            x, **parameters, activation=config["activation"], activation_scale=config["activation_scale"]
        )
    if case.kind in ("query", "key", "value"):
        return reference.projection(x, **parameters, normalization=config["normalization"])
    if case.kind == "transition":
        options = {name: config[name] for name in TRANSITION_OPTIONS}
        return reference.transition(x, **parameters, **options, matrix_exponential="series")
    if case.kind == "norm":
        kind = "rms" if "RMS" in config["config_class"] else "layer"
        if "num_heads" in config:
            return reference.multi_head_norm(x, **parameters, kind=kind, axis=config["axis"], eps=config["eps"])
        return getattr(reference, f"{kind}_norm")(x, **parameters, eps=config["eps"])
    weight, bias = parameters["_conv.weight"], parameters["_conv.bias"]
    if config["config_class"] == "Convolution1DLayerConfig":
        return reference.convolution_1d(x, weight, bias)
    return reference.convolution_2d(x, weight, bias, causal=True)


KINDS = ("source", "mark", "direct", "query", "key", "value", "transition", "norm", "convolution")
NAMES = [name for kind in KINDS for name in golden.names(kind)]


@pytest.mark.parametrize("name", NAMES)
def test_golden_output(name):
    case = golden.load(name)
    assert_within(evaluate(case, case.inputs["x"], case.parameters), case.outputs["output"], case.limit, name)


@pytest.mark.parametrize("name", NAMES)
def test_finite_differences_equal_golden_gradients(name):
    case = golden.load(name)
    random = np.random.default_rng(5)
    values = {"x": case.inputs["x"]} | {f"param/{key}": array for key, array in case.parameters.items()}
    for argument, recorded in case.gradients.items():

        def along(moved, argument=argument):
            now = values | {argument: moved}
            parameters = {key: now[f"param/{key}"] for key in case.parameters}
            return float(np.sum(evaluate(case, now["x"], parameters) * case.inputs["cotangent"]))

        direction = random.standard_normal(recorded.shape) / np.sqrt(recorded.size)
        found = directional_derivative(along, values[argument], direction, step=1e-3)
        # a random direction may be nearly orthogonal to the gradient: judge by the gradient's own size
        scale = rms(recorded) or 1.0
        assert_within((found - np.sum(recorded * direction)) / scale, 0.0, case.limit, f"{name}: {argument}")


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 30.0])
def test_exact_exponential_is_a_rotation(scale):
    matrix = scale * np.random.default_rng(1).standard_normal((5, 5))
    rotation = reference.normalize(matrix, "exponential_orthogonalization")
    assert_close(rotation @ rotation.T, np.eye(5))
    assert_close(np.linalg.det(rotation), 1.0)
    half = reference.normalize(matrix / 2, "exponential_orthogonalization")
    assert_close(half @ half, rotation)


def test_exact_exponential_is_the_limit_of_the_series():
    matrix = 0.2 * np.random.default_rng(2).standard_normal((4, 4))
    exact = reference.normalize(matrix, "exponential_orthogonalization", factor=0.5)
    series = reference.normalize(matrix, "exponential_orthogonalization", 16, 0.5, "series")
    assert_close(series, exact)
    assert_close(reference.normalize(matrix, "exponential_orthogonalization", 1, 0.5, "series"), np.eye(4))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_qr(size):
    matrix = np.random.default_rng(3).standard_normal((size, size))
    q = reference.normalize(matrix, "qr")
    assert_close(q @ q.T, np.eye(size))
    assert_close(q, np.linalg.qr(matrix)[0])


@pytest.mark.parametrize("size", [2, 3, 5])
def test_householder_reflects_each_row(size):
    """Rows far longer than the guard of the division give true reflections, the first of which acts last."""
    matrix = 1e8 * np.random.default_rng(3).standard_normal((size, size))
    product = reference.normalize(matrix, "householder_orthogonalization")
    assert_close(product @ product.T, np.eye(size))
    assert_close(np.linalg.det(product), 1.0)  # as many signs as reflections
    (row,) = matrix[:1] / np.linalg.norm(matrix[0])
    others = matrix.copy()
    others[0] = 0.0
    assert_close(product, reflection(row) @ reference.normalize(others, "householder_orthogonalization"))


def reflection(unit):
    return np.eye(len(unit)) - 2 * np.outer(unit, unit)


def test_qr_of_a_triangular_matrix_is_the_identity():
    assert_close(reference.normalize(np.triu(np.ones((3, 3))), "qr"), np.eye(3))


def test_restrictions_leave_small_matrices_alone():
    small = 0.1 * np.random.default_rng(4).standard_normal((4, 4))
    for mode in ("eigenvalue_restriction", "singularvalue_restriction"):
        assert_close(reference.normalize(small, mode), small)
        assert_close(reference.normalize(np.eye(4), mode), np.eye(4))
    large = reference.normalize(50 * small, "singularvalue_restriction", order=200)
    assert np.linalg.norm(large, ord=2) < 1.05


def test_names_are_checked():
    x, bias = np.zeros((2, 4)), np.zeros((3, 1))
    with pytest.raises(ValueError, match=r"activation: expected one of .*, got 'relu'"):
        reference.gate(x, bias, activation="relu")
    with pytest.raises(ValueError, match=r"name: expected one of .*, got 'relu'"):
        reference.activation("relu", x)
    with pytest.raises(ValueError, match="normalization: expected 'none' or 'l2', got 'l1'"):
        reference.projection(x, np.zeros((1, 2, 1, 2, 2)), normalization="l1")
    with pytest.raises(ValueError, match=r"mode: expected one of .*, got 'svd'"):
        reference.normalize(np.eye(2), "svd")
    with pytest.raises(ValueError, match="exponential: expected 'exact' or 'series', got 'pade'"):
        reference.normalize(np.eye(2), "exponential_orthogonalization", exponential="pade")
    with pytest.raises(ValueError, match=r"eigenvalue_representation: expected one of .*, got 'sin'"):
        reference.transition(x, bias, eigenvalue_representation="sin")
    with pytest.raises(ValueError, match=r"kind: expected one of .*, got 'batch'"):
        reference.multi_head_norm(x, kind="batch")
    with pytest.raises(ValueError, match="num_heads: expected the number of heads"):
        reference.multi_head_norm(x, axis=None)


def test_multi_head_norm_on_each_axis():
    x = np.random.default_rng(6).standard_normal((2, 3, 5, 4))
    scale, bias = np.random.default_rng(7).standard_normal((2, 3, 4))
    on_one = reference.multi_head_norm(x, scale, bias, axis=1)
    assert_close(reference.multi_head_norm(x[1], scale, bias, axis=0), on_one[1])
    joined = np.moveaxis(x, 1, -2).reshape(2, 5, 12)
    split = reference.multi_head_norm(joined, scale, bias, axis=None, num_heads=3)
    assert_close(np.moveaxis(split.reshape(2, 5, 3, 4), -2, 1), on_one)


def test_centred_convolution_sees_both_sides():
    x = np.zeros((1, 5, 4, 1))
    x[0, 2, 1, 0] = 1.0
    weight = np.arange(9.0).reshape(1, 1, 3, 3)
    seen = reference.convolution_2d(x, weight)[0, 1:4, 0:3, 0]
    assert_close(seen, weight[0, 0, ::-1, ::-1])
    causal = reference.convolution_2d(x, weight, causal=True)[0, 2:5, 1:4, 0]
    assert_close(causal, weight[0, 0, ::-1, ::-1])


def test_activations():
    z = np.linspace(-40.0, 40.0, 9)
    sigmoid = 1 / (1 + np.exp(-z))
    assert_close(reference.activation("sigmoid", z), sigmoid)
    assert_close(reference.activation("silu", z), z * sigmoid)
    assert_close(np.exp(reference.activation("logsigmoid", z)), sigmoid)
    assert_close(reference.activation("gelu", [1.0]), [0.8413447460685429])
    assert_close(reference.activation("gelu_tanh", [1.0]), [0.8411919906082768])
    assert_close(reference.soft_cap(z, 10.0), 10 * np.tanh(z / 10))
