import pytest
import torch

from plstm_config import LongRangeTransitionLayerConfig
from plstm_testing import reference
from plstm_torch import functional
from plstm_torch.build import build

DTYPES = {"dtype": "float64", "param_dtype": "float64"}
ORTHOGONALIZATIONS = ("qr", "householder_orthogonalization", "exponential_orthogonalization")
MODES = (*ORTHOGONALIZATIONS, "eigenvalue_restriction", "singularvalue_restriction")
# Power iterations end in a kink or stand still near rounding, where finite differences say nothing.
FUNCTIONS = {
    "qr": functional.qr,
    "householder": functional.householder_orthogonalization,
    "exponential": lambda matrix: functional.exponential_orthogonalization(matrix, 0.7),
    "series": lambda matrix: functional.exponential_orthogonalization(matrix, 0.7, terms=6),
    "eigenvalues": lambda matrix: functional.eigenvalue_restriction(matrix, 3),
    "singular values": lambda matrix: functional.singularvalue_restriction(matrix, 3),
}


def layer(randomize, scale=0.5, **options):
    options = {"num_heads": 4, "input_dim": 8, "sub_heads": 2, "transition_dim": 3, **DTYPES, **options}
    return randomize(build(LongRangeTransitionLayerConfig(**options)), scale)


def by_reference(module, x):
    config = module.config
    parameters = {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}
    names = (
        "eigenvalue_representation",
        "eigenvalue_factor",
        "normalization_mode",
        "orthogonalization_order",
        "orthogonalization_factor",
        "matrix_exponential",
    )
    return reference.transition(x.numpy(), **parameters, **{name: getattr(config, name) for name in names})


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_agrees_with_the_reference(mode, symmetric, dim, randomize, assert_close):
    # Few iterations: once the first run of eigenvalue_restriction has converged, the second starts from its rounding.
    options = {"orthogonalization_order": 3} if mode == "eigenvalue_restriction" else {}
    module = layer(randomize, normalization_mode=mode, symmetric=symmetric, transition_dim=dim, **options)
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    assert module(x).shape == (2, 3, 4, dim, dim)
    assert_close(module(x), by_reference(module, x))


@pytest.mark.parametrize("representation", ["logsigmoid", "expexp", "tanh"])
@pytest.mark.parametrize("dim", [1, 2])
def test_eigenvalue_representations(representation, dim, randomize, assert_close):
    module = layer(
        randomize, eigenvalue_representation=representation, eigenvalue_factor=0.8, transition_dim=dim, sub_heads=4
    )
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    assert_close(module(x), by_reference(module, x))


def test_the_series_is_kept_for_original_weights(randomize, assert_close):
    module = layer(randomize, scale=3.0, matrix_exponential="series", orthogonalization_order=4)
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    assert_close(module(x), by_reference(module, x))


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("mode", ORTHOGONALIZATIONS)
def test_orthogonalisations_bound_the_transition(mode, scale, randomize):
    module = layer(randomize, scale, normalization_mode=mode, transition_dim=4)
    norms = torch.linalg.matrix_norm(module(torch.randn(5, 8, dtype=torch.float64)), ord=2)
    assert norms.max() < 1 + 1e-4  # householder divides by |row| + 1e-5, which leaves reflections of norm one at most


def test_singular_value_restriction_bounds_to_the_accuracy_of_the_iteration(randomize):
    module = layer(randomize, 2.0, normalization_mode="singularvalue_restriction", orthogonalization_order=200)
    norms = torch.linalg.matrix_norm(module(torch.randn(5, 8, dtype=torch.float64)), ord=2)
    assert norms.max() < 1.01


def test_eigenvalue_restriction_does_not_bound_the_norm():
    # What the documentation warns of: a nilpotent matrix has no eigenvalue to restrict.
    matrix = torch.tensor([[0.0, 7.0], [0.0, 0.0]], dtype=torch.float64)
    assert torch.linalg.matrix_norm(functional.eigenvalue_restriction(matrix, 16), ord=2) > 1.5


def test_eigenvalue_restriction_bounds_symmetric_matrices():
    matrix = torch.randn(20, 4, 4, dtype=torch.float64)
    positive = matrix @ matrix.mT
    eigenvalues = torch.linalg.eigvalsh(functional.eigenvalue_restriction(positive, 300))
    assert eigenvalues.max() < 1.01


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_exact(name):
    matrix = torch.randn(3, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(FUNCTIONS[name], (matrix,))
    assert torch.autograd.gradgradcheck(FUNCTIONS[name], (matrix,))


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "qr"])
@pytest.mark.parametrize("value", ["zeros", "eye"])
def test_gradients_are_finite_at_zero_and_at_the_identity(name, value):
    start = torch.zeros(3, 3) if value == "zeros" else torch.eye(3)
    matrix = start.double().requires_grad_()
    FUNCTIONS[name](matrix).sum().backward()
    assert matrix.grad.isfinite().all()


@pytest.mark.parametrize("mode", MODES)
def test_the_initial_transition_has_finite_gradients(mode):
    module = build(
        LongRangeTransitionLayerConfig(num_heads=2, input_dim=4, transition_dim=4, normalization_mode=mode, **DTYPES)
    )
    x = torch.randn(3, 4, dtype=torch.float64)
    (module(x) * torch.randn(3, 2, 4, 4)).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad.isfinite().all(), name


def test_without_weights_the_transition_is_the_same_at_every_node(randomize, assert_close):
    module = layer(randomize, weight=False)
    assert sorted(name for name, _ in module.named_parameters()) == ["eigenvalues_bias", "inproj_bias", "outproj_bias"]
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    output = module(x)
    assert output.shape == (2, 3, 4, 3, 3)
    assert_close(output, by_reference(module, x))


def test_a_scalar_transition_has_no_projections(randomize):
    module = layer(randomize, transition_dim=1)
    assert sorted(name for name, _ in module.named_parameters()) == ["eigenvalues_bias", "eigenvalues_weight"]


@pytest.mark.parametrize("representation", ["logsigmoid", "expexp", "tanh"])
def test_huge_eigenvalue_gates_stay_finite(representation):
    z = torch.tensor([-1e5, -300.0, -100.0, 0.0, 100.0, 1e5], requires_grad=True)
    values = functional.eigenvalue_activation(z, representation, 5.0)
    values.sum().backward()
    assert values.abs().max() <= 1
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_transitions_stay_in_float32(mode, dtype, randomize, assert_close):
    module = layer(randomize, normalization_mode=mode, dtype=dtype, param_dtype="float32", weight=False)
    x = torch.randn(2, 8)
    exact = layer(randomize, normalization_mode=mode, weight=False)
    exact.load_state_dict(module.state_dict())
    assert module(x).dtype == torch.float32
    assert_close(module(x), exact(x), "float32")
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(module(x), exact(x), "float32")


def test_unknown_names_list_the_known_ones():
    z = torch.zeros(2)
    with pytest.raises(ValueError, match="activation: expected one of 'identity', 'tanh', 'logsigmoid', got 'relu'"):
        functional.gate_activation(z, "relu", 1.0)
    with pytest.raises(ValueError, match="representation: expected one of 'tanh', 'logsigmoid', 'expexp', got 'sin'"):
        functional.eigenvalue_activation(z, "sin", 1.0)


def test_wrong_number_of_features_is_refused(randomize):
    with pytest.raises(ValueError, match=r"x: expected \[\.\.\., D\] with D=8, got \[2, 9\]"):
        layer(randomize)(torch.zeros(2, 9))
