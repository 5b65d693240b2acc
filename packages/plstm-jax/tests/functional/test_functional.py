"""Gates, normalisations and norms against the reference, and their gradients where they could break."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plstm_jax import functional
from plstm_testing import golden, reference
from plstm_testing.finite_differences import directional_derivative
from plstm_testing.tolerances import assert_close


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def assert_gradient(jit, function, point):
    """The gradient of a weighted sum along a random direction, by central differences."""
    weight, direction = normal(*point.shape, seed=9), normal(*point.shape, seed=10)

    def weighted(x):
        return jnp.sum(function(x) * weight)

    analytic = np.sum(jit(jax.grad(weighted))(point) * direction)
    value = jit(weighted)
    numeric = directional_derivative(lambda x: float(value(x)), point, direction, step=1e-4)
    assert_close(analytic, numeric, "float64", "gradient")


@pytest.mark.parametrize("name", list(reference.ACTIVATIONS))
def test_activations(name):
    z = 3 * normal(40)
    assert_close(functional.activation(name, jnp.asarray(z)), reference.activation(name, z))


def test_the_tables_are_those_of_the_reference():
    assert set(functional.ACTIVATIONS) == set(reference.ACTIVATIONS)
    assert set(functional.EIGENVALUES) == set(reference.EIGENVALUES)
    assert set(functional.NORMALIZATIONS) == set(reference.NORMALIZATIONS)


def test_soft_cap():
    z = 20 * normal(40)
    assert_close(functional.soft_cap(jnp.asarray(z), 10.0), reference.soft_cap(z, 10.0))


@pytest.mark.parametrize("representation", list(functional.EIGENVALUES))
def test_eigenvalues_and_their_gradients_stay_finite(representation):
    z = jnp.array([-1e4, -100.0, -1.0, 0.0, 1.0, 100.0, 1e4], jnp.float32)
    for function in (functional.eigenvalue_activation, jax.jacrev(functional.eigenvalue_activation)):
        values = function(z, representation, 5.0)
        assert np.all(np.isfinite(values))
        assert np.all(np.abs(functional.eigenvalue_activation(z, representation, 5.0)) <= 1.0)


@pytest.mark.parametrize("activation", list(functional.GATE_ACTIVATIONS))
@pytest.mark.parametrize("with_weight", [True, False])
def test_gate(activation, with_weight):
    x, bias = normal(2, 3, 8), normal(4, 2, 1, 3)
    weight = normal(2, 2, 2, 1, 3, 4) if with_weight else None
    expected = reference.gate(x, bias, weight, activation, 1.7)
    arrays = [None if array is None else jnp.asarray(array) for array in (x, bias, weight)]
    assert_close(functional.gate(*arrays, activation, 1.7), expected)


@pytest.mark.parametrize("normalization", ["none", "l2"])
def test_projection(normalization):
    x, weight, bias = normal(2, 3, 8), normal(2, 3, 2, 2, 4), normal(4, 3, 2)
    expected = reference.projection(x, weight, bias, normalization)
    assert_close(functional.projection(*map(jnp.asarray, (x, weight, bias)), normalization), expected)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("mode", list(functional.NORMALIZATIONS))
def test_normalizations(jit, mode, size):
    matrices = 1.5 * normal(3, size, size, seed=20 + size)  # eigenvalues far apart: central differences stay exact
    matrices[0] = np.eye(size)
    expected = np.stack([reference.normalize(matrix, mode) for matrix in matrices])
    assert_close(jit(lambda x: functional.normalize(x, mode))(matrices), expected)
    assert_gradient(jit, lambda x: functional.normalize(x, mode), matrices[1:])


@pytest.mark.parametrize("mode", ["qr", "householder_orthogonalization", "exponential_orthogonalization"])
def test_orthogonal_normalizations_are_orthogonal(jit, mode):
    matrices = jit(lambda x: functional.normalize(x, mode))(40 * normal(5, 3, 3))
    products = np.einsum("bij,bkj->bik", matrices, matrices)
    expected = np.broadcast_to(np.eye(3), products.shape)
    # the stabiliser of the reflections leaves them orthogonal to its own relative size only
    assert_close(products, expected, "float32" if mode.startswith("householder") else "float64")


@pytest.mark.parametrize("size", [1, 2, 4])
def test_qr_is_that_of_lapack_where_columns_are_special(size):
    """Identities, triangles and zero columns: in value, and in every direction."""
    ordinary = normal(size, size)
    matrices = np.stack([np.eye(size), -np.eye(size), np.triu(ordinary), np.tril(ordinary), ordinary])
    matrices[-1, 1:, 0] = 0.0
    direction = normal(*matrices.shape, seed=1)
    q, tangent = jax.jvp(functional.qr, (jnp.asarray(matrices),), (jnp.asarray(direction),))
    expected, r = np.linalg.qr(matrices)
    assert_close(q, expected)
    lower = np.tril(np.swapaxes(expected, 1, 2) @ direction @ np.linalg.inv(r), -1)
    assert_close(tangent, expected @ (lower - np.swapaxes(lower, 1, 2)), kind="gradient")


def test_exponential_of_small_and_large_rotations():
    """In the plane it is a rotation by the entry; beyond what squaring can reach it says so."""
    angles = np.array([0.0, 1e-8, 0.3, 1.0, 10.0, 1000.0])
    matrices = np.zeros((len(angles), 2, 2))
    matrices[:, 0, 1] = angles
    cos, sin = np.cos(angles), np.sin(angles)
    expected = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)
    assert_close(functional.normalize(jnp.asarray(matrices), "exponential_orthogonalization"), expected)
    assert np.all(np.isnan(functional.normalize(1e6 * matrices[-1:], "exponential_orthogonalization")))


@pytest.mark.parametrize("mode", list(functional.NORMALIZATIONS))
def test_no_program_calls_lapack(jit, mode):
    """On CPU, two batched calls of it that run at once may never end."""
    gradient = jit(jax.grad(lambda x: jnp.sum(functional.normalize(x, mode) ** 3)))
    assert "custom_call" not in gradient.lower(normal(5, 3, 3)).as_text()


def test_truncated_exponential():
    matrices = normal(3, 3, 3)
    expected = np.stack([reference.normalize(m, "exponential_orthogonalization", 5, 0.7, "series") for m in matrices])
    mode = "exponential_orthogonalization"
    assert_close(functional.normalize(jnp.asarray(matrices), mode, 5, 0.7, "series"), expected)


@pytest.mark.parametrize(
    "mode", ["householder_orthogonalization", "exponential_orthogonalization", "eigenvalue_restriction"]
)
def test_gradients_at_the_identity_and_at_zero_are_finite(jit, mode):
    gradient = jit(jax.grad(lambda x: jnp.sum(functional.normalize(x, mode) ** 2)))
    assert np.all(np.isfinite(gradient(np.stack([np.eye(3), np.zeros((3, 3))]))))


@pytest.mark.parametrize("name", golden.names("transition"))
def test_golden_transitions(jit, name):
    case = golden.load(name)
    names = ("eigenvalue_representation", "eigenvalue_factor", "normalization_mode")
    names += ("orthogonalization_order", "orthogonalization_factor")
    options = {key: case.config[key] for key in names if key in case.config} | {"matrix_exponential": "series"}
    found = jit(lambda x, given: functional.transition(x, **given, **options))(case.inputs["x"], case.parameters)
    assert_close(found, case.outputs["output"], "float32" if "qr" in name else "float64")


@pytest.mark.parametrize("symmetric", [True, False])
def test_transition(jit, symmetric):
    x = normal(2, 8)
    names = ("eigenvalues", "inproj", "outproj")[: 2 if symmetric else 3]
    shapes = {"eigenvalues": (2,), "inproj": (2, 2), "outproj": (2, 2)}
    parameters = {}
    for seed, name in enumerate(names):
        parameters[f"{name}_bias"] = normal(4, *shapes[name], seed=seed)
        parameters[f"{name}_weight"] = normal(2, 2, *shapes[name], 4, seed=seed + 5)
    expected = reference.transition(x, **parameters)
    assert_close(jit(lambda x, given: functional.transition(x, **given))(x, parameters), expected)


@pytest.mark.parametrize("norm", ["rms_norm", "layer_norm"])
def test_norms(norm):
    x, scale, bias = normal(2, 3, 8), normal(8, seed=1), normal(8, seed=2)
    for parameters in ((), (scale,), (scale, bias)):
        expected = getattr(reference, norm)(x, *parameters)
        assert_close(getattr(functional, norm)(jnp.asarray(x), *map(jnp.asarray, parameters)), expected)


@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize(("axis", "shape"), [(1, (2, 4, 5, 3)), (0, (4, 5, 3)), (None, (2, 5, 12))])
def test_multi_head_norms(kind, axis, shape):
    x, scale, bias = normal(*shape), normal(4, 3, seed=1), normal(4, 3, seed=2)
    options = {"kind": kind, "axis": axis, "num_heads": 4}
    expected = reference.multi_head_norm(x, scale, bias, **options)
    assert_close(functional.multi_head_norm(*map(jnp.asarray, (x, scale, bias)), **options), expected)


def test_norms_compute_in_float32_and_keep_the_dtype():
    x = jnp.asarray(100 + normal(4, 64), jnp.bfloat16)
    found = functional.layer_norm(x)
    assert found.dtype == jnp.bfloat16
    assert_close(found.astype(jnp.float64), reference.layer_norm(np.asarray(x, np.float64)), "bfloat16")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: functional.activation("relu", jnp.ones(1)), "name: expected one of .*, got 'relu'"),
        (lambda: functional.gate_activation(jnp.ones(1), "relu"), "activation: expected one of .*, got 'relu'"),
        (lambda: functional.eigenvalue_activation(jnp.ones(1), "x"), "eigenvalue_representation: expected one of"),
        (lambda: functional.normalize(jnp.eye(2), "svd"), "mode: expected one of .*, got 'svd'"),
        (lambda: functional.normalize(jnp.eye(2), "qr", exponential="pade"), "exponential: expected one of 'exact'"),
        (
            lambda: functional.projection(*[jnp.ones(1)] * 3, "l1"),
            "normalization: expected one of .*, got 'l1'",
        ),
        (lambda: functional.multi_head_norm(jnp.ones(6), kind="x"), "kind: expected one of .*, got 'x'"),
        (lambda: functional.multi_head_norm(jnp.ones(6), axis=None), "num_heads: expected a divisor of 6"),
        (lambda: functional.multi_head_norm(jnp.ones(6), axis=None, num_heads=4), "num_heads: expected a divisor of 6"),
    ],
)
def test_unknown_names(call, message):
    with pytest.raises(ValueError, match=message):
        call()
