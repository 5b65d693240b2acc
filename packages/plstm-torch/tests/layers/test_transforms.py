"""Layers under what users put around them: compilation, function transforms, copies, other devices, autocast."""

import copy

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from plstm_config import (
    Convolution1DLayerConfig,
    LongRangeTransitionLayerConfig,
    pLSTM1DLayerConfig,
    pLSTM2DLayerConfig,
    pLSTM2DLayerFusedConfig,
)
from plstm_torch.build import build

pytestmark = pytest.mark.usefixtures("fresh_compiler")
DTYPES = {"dtype": "float64", "param_dtype": "float64"}
MATRIX = {"JV": 2, "JT": 2, "JO": 2}
SEQUENCE, GRID = (2, 6, 8), (2, 4, 3, 8)
CASES = {
    "1d": (pLSTM1DLayerConfig, {}, SEQUENCE),
    "1d scalar": (pLSTM1DLayerConfig, {"JV": 1, "JT": 1, "JO": 1}, SEQUENCE),
    "fused P": (pLSTM2DLayerFusedConfig, {"mode": "P", "additional_convolution": True}, GRID),
    "fused D": (pLSTM2DLayerFusedConfig, {"mode": "D", "additional_passthrough": True}, GRID),
    "fused P matrix": (pLSTM2DLayerFusedConfig, {"mode": "P", **MATRIX}, GRID),
    "listed P": (pLSTM2DLayerConfig, {"mode": "P", "orientation_combinations": [0, 3]}, GRID),
    "listed D": (pLSTM2DLayerConfig, {"mode": "D", "orientation_combinations": [1, 2]}, GRID),
}


@pytest.fixture(params=CASES)
def case(request, randomize):
    config_class, options, shape = CASES[request.param]
    module = build(config_class(input_dim=8, num_heads=2, **options, **DTYPES))
    return randomize(module, 0.4), torch.randn(shape, dtype=torch.float64)


def gradients(function, module, x):
    module.zero_grad()
    x = x.clone().requires_grad_()
    output = function(x)
    output.square().sum().backward()
    return output, {"x": x.grad, **{name: parameter.grad for name, parameter in module.named_parameters()}}


def compare(function, module, x, assert_close):
    output, grads = gradients(function, module, x)
    expected_output, expected = gradients(module, module, x)
    assert_close(output, expected_output)
    for name, grad in expected.items():
        assert_close(grads[name], grad, kind="gradient", label=name)


@pytest.mark.parametrize("name", ["1d", "1d scalar", "fused P", "fused D", "listed P"])
def test_compiles_without_graph_breaks(name, randomize, assert_close):
    config_class, options, shape = CASES[name]
    module = randomize(build(config_class(input_dim=8, num_heads=2, **options, **DTYPES)), 0.4)
    x = torch.randn(shape, dtype=torch.float64)
    compare(torch.compile(module, fullgraph=True, backend="aot_eager"), module, x, assert_close)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # raised by the compiler itself
@pytest.mark.parametrize(("name", "shape"), [("1d scalar", (1, 4, 8)), ("fused P", (1, 2, 2, 8))])
def test_compiles_to_machine_code(name, shape, randomize, assert_close):
    config_class, options, _ = CASES[name]
    module = randomize(build(config_class(input_dim=8, num_heads=2, **options, **DTYPES)), 0.4)
    x = torch.randn(shape, dtype=torch.float64)
    compare(torch.compile(module, fullgraph=True), module, x, assert_close)


def test_steps_compile(randomize, assert_close):
    module = randomize(build(pLSTM1DLayerConfig(input_dim=8, num_heads=2, **DTYPES)), 0.4)
    x = torch.randn(2, 8, dtype=torch.float64)
    cache = {name: torch.randn_like(tensor) for name, tensor in module.init_cache(2).items()}
    output, new = torch.compile(module.step, fullgraph=True, backend="aot_eager")(x, cache)
    expected, expected_new = module.step(x, cache)
    assert_close(output, expected)
    assert_close(new["state"], expected_new["state"], kind="state")


def test_per_sample_gradients(case, assert_close):
    """vmap over the batch of grad over functional_call: the way to per-sample gradients."""
    module, x = case
    parameters = dict(module.named_parameters())

    def loss(parameters, sample):
        return torch.func.functional_call(module, parameters, (sample[None],)).square().sum()

    detached = {name: parameter.detach() for name, parameter in parameters.items()}
    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(detached, x)
    _, expected = gradients(module, module, x)
    for name in parameters:
        assert_close(per_sample[name].sum(0), expected[name], kind="gradient", label=name)


def test_ensembles_of_weights(case, assert_close):
    module, x = case
    stacked = {name: torch.stack([p, p * 1.1]).detach() for name, p in module.named_parameters()}
    together = torch.func.vmap(lambda weights: torch.func.functional_call(module, weights, (x,)))(stacked)
    for index in range(2):
        alone = torch.func.functional_call(module, {name: p[index] for name, p in stacked.items()}, (x,))
        assert_close(together[index], alone)


def test_activation_checkpointing(case, assert_close):
    module, x = case
    compare(lambda x: checkpoint(module, x, use_reentrant=False), module, x, assert_close)


def test_copies_and_state_dicts(case, assert_close):
    module, x = case
    expected = module(x)
    assert_close(copy.deepcopy(module)(x), expected)
    other = build(module.config)
    other.load_state_dict(module.state_dict())
    assert_close(other(x), expected)


def test_weights_on_the_meta_device_can_be_drawn_later(case):
    module, x = case
    torch.manual_seed(5)
    usual = build(module.config)
    with torch.device("meta"):
        empty = build(module.config)
    assert all(parameter.is_meta for parameter in empty.parameters())
    moved = empty.to_empty(device="cpu")
    torch.manual_seed(5)
    moved.reset_parameters()
    for (name, parameter), (other_name, other) in zip(usual.named_parameters(), moved.named_parameters(), strict=True):
        assert name == other_name
        assert torch.equal(parameter, other), name
    assert moved(x).isfinite().all()


def test_reset_draws_again(case):
    module, _ = case
    torch.manual_seed(1)
    module.reset_parameters()
    first = {name: parameter.clone() for name, parameter in module.named_parameters()}
    torch.manual_seed(2)
    module.reset_parameters()
    second = dict(module.named_parameters())
    assert any(not torch.equal(first[name], second[name]) for name in first)
    torch.manual_seed(1)
    module.reset_parameters()
    assert all(torch.equal(first[name], second[name]) for name in first)


def narrow(name, randomize, dtype):
    config_class, options, shape = CASES[name]
    exact = build(config_class(input_dim=8, num_heads=2, **options, **DTYPES))
    module = build(config_class(input_dim=8, num_heads=2, **options, dtype=dtype, param_dtype="float32"))
    randomize(module, 0.3)
    exact.load_state_dict(module.state_dict())
    return module, exact, torch.randn(shape)


@pytest.mark.parametrize("name", CASES)
def test_float32_agrees_with_float64(name, randomize, assert_close):
    module, exact, x = narrow(name, randomize, "float32")
    output = module(x)
    assert output.dtype == torch.float32
    assert_close(output, exact(x), "float32")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", CASES)
def test_narrow_dtypes_run_without_autocast(name, dtype, randomize, assert_close):
    module, exact, x = narrow(name, randomize, dtype)
    output = module(x)
    assert (output.dtype, module.dtype) == (x.dtype, getattr(torch, dtype))
    output.float().square().sum().backward()
    for parameter_name, parameter in module.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all(), parameter_name
    # Projections, op, norm and output round one after the other: the table's entry for gradients fits such chains.
    assert_close(output, exact(x), dtype, kind="gradient")


@pytest.mark.parametrize("name", CASES)
def test_gates_and_states_stay_wide_under_autocast(name, randomize, assert_close, monkeypatch):
    module, exact, x = narrow(name, randomize, "float32")
    seen = {}

    def spy(function):
        def call(*args, **kwargs):
            seen.update(kwargs)
            return function(*args, **kwargs)

        return call

    import plstm_torch.layers.plstm_1d as sequence
    import plstm_torch.layers.plstm_2d as grid

    monkeypatch.setattr(sequence, "plstm_1d", spy(sequence.plstm_1d))
    monkeypatch.setattr(grid, "plstm_2d", spy(grid.plstm_2d))
    monkeypatch.setattr(grid, "plstm_2d_oriented", spy(grid.plstm_2d_oriented))
    with torch.autocast("cpu", torch.bfloat16):
        output = module(x)
    output.float().sum().backward()
    gates = {key: value for key, value in seen.items() if key.startswith(("source", "transition", "mark", "direct"))}
    assert gates
    assert all(gate.dtype == torch.float32 for gate in gates.values())
    assert_close(output, exact(x), "bfloat16", kind="gradient")


def test_the_state_is_never_narrow():
    module = build(pLSTM1DLayerConfig(input_dim=8, num_heads=2, dtype="bfloat16"))
    _, cache = module(torch.randn(2, 5, 8, dtype=torch.bfloat16), return_cache=True)
    assert cache["state"].dtype == torch.float32
    assert module.step(torch.randn(2, 8), module.init_cache(2))[1]["state"].dtype == torch.float32
    assert module.init_cache(2, dtype=torch.float64)["state"].dtype == torch.float64
    assert cache["window"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    "config",
    [
        LongRangeTransitionLayerConfig(
            num_heads=2,
            input_dim=8,
            transition_dim=3,
            normalization_mode=mode,
            orthogonalization_order=3,
            **DTYPES,
        )
        for mode in (
            "qr",
            "eigenvalue_restriction",
            "singularvalue_restriction",
            "householder_orthogonalization",
            "exponential_orthogonalization",
        )
    ]
    + [Convolution1DLayerConfig(input_dim=8, **DTYPES)],
    ids=lambda config: getattr(config, "normalization_mode", "convolution"),
)
def test_parts_compile(config, randomize, assert_close):
    module = randomize(build(config))
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    compare(torch.compile(module, fullgraph=True, backend="aot_eager"), module, x, assert_close)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # raised by the compiler itself
def test_packed_sequences_compile_around_the_op(randomize, assert_close):
    """The op runs one sequence after the other, so the borders' values break the graph."""
    module = randomize(build(pLSTM1DLayerConfig(input_dim=8, num_heads=2, **DTYPES)), 0.4)
    x, borders = torch.randn(2, 6, 8, dtype=torch.float64), torch.tensor([0, 2, 6])
    compiled = torch.compile(module, backend="aot_eager")
    assert_close(compiled(x, cu_seqlens=borders), module(x, cu_seqlens=borders))
