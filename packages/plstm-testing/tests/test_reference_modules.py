"""The reference of whole layers, blocks and models against golden data, and against itself where it must agree."""

import numpy as np
import pytest

from plstm_config import PosEmbed2DConfig, pLSTMGraphLayerConfig, pLSTMVisionModelConfig
from plstm_config.original import convert_weights
from plstm_config.topology import DagTopology
from plstm_testing import golden, reference
from plstm_testing.conformance.model_cases import language_model
from plstm_testing.conformance.modules import evaluate
from plstm_testing.conformance.sequences import packed_call
from plstm_testing.finite_differences import directional_derivative
from plstm_testing.parameters import random_parameters
from plstm_testing.tolerances import assert_close, assert_within, rms, tolerance

NAMES = [case.name for case in golden.cases() if case.config is not None]
# where the research code's backward pass is an approximation, its gradients are not recorded
DIFFERENTIATED = [name for name in NAMES if golden.load(name).gradients]


@pytest.mark.parametrize("name", NAMES)
def test_golden_output(name):
    case = golden.load(name)
    config, parameters = case.module()
    output = reference.apply(config, parameters, *case.arguments().values())
    assert_within(output, case.outputs["output"], case.limit, name)


@pytest.mark.parametrize("name", DIFFERENTIATED)
def test_derivatives_equal_golden_gradients(name):
    """Along random directions of all inputs and parameters together."""
    case, random = golden.load(name), np.random.default_rng(5)
    config, parameters = case.module()
    gradients = {key: array for key, array in case.gradients.items() if not key.startswith("param/")}
    recorded = {key.removeprefix("param/"): a for key, a in case.gradients.items() if key.startswith("param/")}
    converted = convert_weights(config, recorded) if case.is_original else recorded
    gradients |= {f"param/{key}": array for key, array in converted.items()}
    directions = {key: random.standard_normal(array.shape) for key, array in gradients.items()}

    def weighted(distance):
        def moved(key, array):
            return array + distance * directions[key] if key in directions else array

        inputs = [moved(key, value) for key, value in case.arguments().items()]
        now = {key: moved(f"param/{key}", array) for key, array in parameters.items()}
        return float(np.sum(reference.apply(config, now, *inputs) * case.inputs["cotangent"]))

    found = directional_derivative(weighted, np.zeros(()), np.ones(()), step=1e-6)
    expected = sum(np.sum(gradients[key] * direction) for key, direction in directions.items())
    scale = np.sqrt(sum(array.size * rms(array) ** 2 for array in gradients.values()))  # a random product's size
    assert_within((found - expected) / scale, 0.0, max(case.limit, tolerance("float64", "derivative")), name)


def test_positions_are_resampled_by_the_cubic_kernel():
    """A single entry spreads as the kernel with a = -3/4; the same grid is not touched, and constants stay."""
    config = PosEmbed2DConfig(dim=1, seqlens=(8, 2), dtype="float64", param_dtype="float64")
    single = np.zeros((1, 8, 2, 1))
    single[0, 3] = 1.0
    finer = reference.apply(config, {"embed": single}, np.zeros((1, 16, 2, 1)))[0, :, 0, 0]
    assert_close(finer[3:7], [-0.03515625, -0.10546875, 0.26171875, 0.87890625])
    assert_close(finer, [*finer[::-1][2:].tolist(), 0.0, 0.0])
    constant = np.full((1, 8, 2, 1), 3.0)
    assert_close(reference.apply(config, {"embed": constant}, np.zeros((1, 5, 7, 1))), np.full((1, 5, 7, 1), 3.0))
    assert_close(reference.apply(config, {"embed": single}, np.zeros((1, 8, 2, 1))), single)


def test_a_batch_of_graphs_is_its_graphs():
    config = pLSTMGraphLayerConfig(input_dim=8, num_heads=2, max_edges=2, dtype="float64", param_dtype="float64")
    random = np.random.default_rng(0)
    parameters, x = random_parameters(config, random), random.standard_normal((7, 8))
    one, two = DagTopology.from_edges(4, [(0, 1), (1, 3), (0, 2)]), DagTopology.from_edges(3, [(0, 2), (1, 2)])
    both = reference.apply(config, parameters, x, DagTopology.batch([one, two]))
    apart = [reference.apply(config, parameters, *pair) for pair in ((x[:4], one), (x[4:], two))]
    assert_close(both, np.concatenate(apart))


def test_packed_sequences_may_hold_anything_beside_others():
    call = packed_call("models", "language_plain", cached=False)
    tokens = call.inputs["token_ids"].copy()
    before = evaluate(call).output
    tokens[:, 4:6] = (tokens[:, 4:6] + 1) % 7
    after = reference.apply(call.config, call.parameters, tokens, cu_seqlens=call.keywords["cu_seqlens"])
    assert_close(np.delete(after, [4, 5], axis=1), np.delete(before, [4, 5], axis=1))


def test_parameters_are_checked():
    config = language_model(vocab_size=5)
    parameters = random_parameters(config, np.random.default_rng(0))
    head = parameters.pop("lm_head.weight")
    with pytest.raises(
        ValueError, match=r"parameters: expected those of the config, got others: missing 'lm_head.weight'"
    ):
        reference.apply(config, parameters, np.zeros((1, 2), int))
    with pytest.raises(
        ValueError, match=r"parameters: expected those of the config, got others: unexpected 'tail.weight'"
    ):
        reference.apply(config, {**parameters, "lm_head.weight": head, "tail.weight": head}, np.zeros((1, 2), int))
    with pytest.raises(ValueError, match=r"lm_head.weight: expected shape \(5, 8\), got \(8, 5\)"):
        reference.apply(config, {**parameters, "lm_head.weight": head.T}, np.zeros((1, 2), int))
    with pytest.raises(TypeError, match=r"config: expected one of .*, got dict"):
        reference.apply({}, {}, np.zeros(2))


def test_random_parameters_follow_the_generator():
    config = pLSTMVisionModelConfig(dim=8, num_blocks=1, num_heads=2, resolution=(32, 32), output_shape=(3,))
    one, same, other = (random_parameters(config, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not any(np.array_equal(one[name], other[name]) for name in one)
