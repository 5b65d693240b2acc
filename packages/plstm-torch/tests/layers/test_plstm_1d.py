from itertools import pairwise

import numpy as np
import pytest
import torch

from plstm_config import IdentityConfig, LayerNormConfig, MultiHeadLayerNormConfig, RMSNormConfig, pLSTM1DLayerConfig
from plstm_torch.build import build

DTYPES = {"dtype": "float64", "param_dtype": "float64"}
SCALAR = {"JV": 1, "JT": 1, "JO": 1}
MATRIX = {"JQ": 2, "JK": 2, "JV": 2, "JT": 3, "JO": 2}


def layer(randomize, **options):
    options = {"input_dim": 16, "num_heads": 2, **DTYPES, **options}
    return randomize(build(pLSTM1DLayerConfig(**options)), 0.3)


@pytest.mark.parametrize("length", [1, 2, 7, 33])
@pytest.mark.parametrize("sizes", [{}, SCALAR, MATRIX])
def test_agrees_with_the_reference(sizes, length, randomize, by_reference, assert_close):
    module = layer(randomize, **sizes)
    x = torch.randn(2, length, 16, dtype=torch.float64)
    assert_close(module(x), by_reference(module, x))


@pytest.mark.parametrize("letters", ["", *"STMDQKVP", "STMDQKVP", "st"])
def test_each_letter_chooses_one_input(letters, randomize, by_reference, assert_close):
    module = layer(randomize, convolution_inputs=letters, **SCALAR)
    for gate in (module.source, module.mark, module.direct):
        assert gate.weight is None  # the default; give the gates eyes below
    module = layer(
        randomize,
        convolution_inputs=letters,
        **SCALAR,
        **{name: with_weight(getattr(module.config, name)) for name in ("source", "mark", "direct")},
    )
    x = torch.randn(2, 6, 16, dtype=torch.float64)
    assert_close(module(x), by_reference(module, x))


def with_weight(config):
    return type(config)(weight=True, sub_heads=2, **DTYPES)


@pytest.mark.parametrize(
    "options",
    [
        {"tie_query_key": True},
        {"additional_convolution": False},
        {"additional_passthrough": False},
        {"outprojection": False, "DV": 8, **SCALAR},
        {"outprojection_bias": True},
        {"additional_convolution": False, "additional_passthrough": False},
    ],
    ids=lambda options: "-".join(options),
)
def test_parts_switch_on_and_off(options, randomize, by_reference, assert_close):
    module = layer(randomize, **options)
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    assert_close(module(x), by_reference(module, x))


def test_a_tied_key_has_no_parameters(randomize):
    names = [name for name, _ in layer(randomize, tie_query_key=True).named_parameters()]
    assert not [name for name in names if name.startswith("key")]


@pytest.mark.parametrize("length", [0, 1, 9])
def test_pieces_equal_the_whole(length, randomize, assert_close):
    module = layer(randomize)
    x = torch.randn(2, 9 + length, 16, dtype=torch.float64)
    whole, last = module(x, return_cache=True)
    one, cache = module(x[:, :9], return_cache=True)
    before = {name: tensor.clone() for name, tensor in cache.items()}
    two, cache_two = module(x[:, 9:], cache=cache, return_cache=True)
    assert_close(torch.cat([one, two], dim=1), whole)
    assert_close(module(x[:, 9:], cache=cache), two)
    for name, tensor in cache_two.items():
        assert_close(tensor, last[name], kind="state", label=name)
        assert torch.equal(cache[name], before[name]), "the given cache must not be modified"


@pytest.mark.parametrize("options", [{}, SCALAR, MATRIX, {"additional_convolution": False}, {"tie_query_key": True}])
def test_steps_equal_the_whole(options, randomize, assert_close):
    module = layer(randomize, **options)
    x = torch.randn(3, 7, 16, dtype=torch.float64)
    whole, last = module(x, return_cache=True)
    cache = module.init_cache(3)
    outputs = []
    for step in x.unbind(1):
        output, cache = module.step(step, cache)
        outputs.append(output)
    assert_close(torch.stack(outputs, dim=1), whole)
    for name, tensor in cache.items():
        assert_close(tensor, last[name], kind="state", label=name)


def test_steps_follow_a_prefill(randomize, assert_close):
    module = layer(randomize)
    x = torch.randn(3, 7, 16, dtype=torch.float64)
    _, cache = module(x[:, :6], return_cache=True)
    output, _ = module.step(x[:, 6], cache)
    assert_close(output, module(x)[:, 6])


BORDERS = [0, 3, 3, 4, 11]


def test_packed_equals_separate(randomize, assert_close):
    module = layer(randomize)
    x = torch.randn(2, 11, 16, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 11, 16, dtype=torch.float64)
    packed = module(x, cu_seqlens=torch.tensor(BORDERS, dtype=torch.int32))
    packed_grad = torch.autograd.grad((packed * weights).sum(), x)[0]
    separate = torch.cat([module(x[:, start:end]) for start, end in pairwise(BORDERS)], dim=1)
    separate_grad = torch.autograd.grad((separate * weights).sum(), x)[0]
    assert_close(packed, separate)
    assert_close(packed_grad, separate_grad, kind="gradient")


def test_packed_sequences_continue_step_by_step(randomize, assert_close):
    module = layer(randomize)
    x = torch.randn(2, 11, 16, dtype=torch.float64)
    cu_seqlens = torch.tensor(BORDERS)
    _, cache = module(x, cu_seqlens=cu_seqlens, return_cache=True)
    count = len(BORDERS) - 1
    following = torch.randn(2 * count, 16, dtype=torch.float64)
    output, _ = module.step(following, cache)
    again, _ = module(
        following.unflatten(0, (2, count)), cache=cache, cu_seqlens=torch.arange(count + 1), return_cache=True
    )
    assert_close(again.flatten(0, 1), output)
    for row in range(2):
        for index, (start, end) in enumerate(pairwise(BORDERS)):
            place = row * count + index
            alone = torch.cat([x[row, start:end], following[place, None]])[None]
            assert_close(output[place], module(alone)[0, -1])


@pytest.mark.parametrize("shape", [(2, 0, 16), (0, 5, 16), (0, 0, 16)])
def test_empty_inputs_pass(shape, randomize):
    module = layer(randomize)
    output, cache = module(torch.zeros(shape, dtype=torch.float64), return_cache=True)
    assert output.shape == shape
    assert cache["state"].shape[0] == shape[0]
    assert cache["state"].abs().sum() == 0


def test_non_contiguous_inputs_pass(randomize, assert_close):
    module = layer(randomize)
    x = torch.randn(16, 5, 2, dtype=torch.float64).permute(2, 1, 0)
    assert_close(module(x), module(x.contiguous()))


NORMS = {
    "identity": (IdentityConfig(), lambda heads: heads),
    "rms": (RMSNormConfig(dtype="float64"), None),
    "layer": (LayerNormConfig(dtype="float64"), None),
    "multi-head layer": (MultiHeadLayerNormConfig(dtype="float64"), None),
}


@pytest.mark.parametrize("name", NORMS)
def test_other_norms(name, randomize, assert_close):
    module = layer(randomize, mhnorm=NORMS[name][0], **SCALAR)
    plain = layer(randomize, mhnorm=IdentityConfig(), outprojection=False, additional_passthrough=False, **SCALAR)
    plain.load_state_dict({key: value for key, value in module.state_dict().items() if key in plain.state_dict()})
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    heads = plain(x).unflatten(-1, (2, 8))
    if name == "identity":
        normal = heads.flatten(-2)
    elif name == "multi-head layer":
        normal = module.mhnorm(heads.transpose(1, 2)).transpose(1, 2).flatten(-2)
    else:
        normal = module.mhnorm(heads.flatten(-2))
    assert_close(module(x) - module.passthrough(module.conv(x)), module.outprojection(normal))


@pytest.mark.parametrize("implementation", ["recurrent", "chunkwise"])
def test_the_implementation_is_passed_on(implementation, randomize, assert_close):
    module = layer(randomize, implementation=implementation)
    reference_module = layer(randomize)
    reference_module.load_state_dict(module.state_dict())
    x = torch.randn(2, 21, 16, dtype=torch.float64)
    assert_close(module(x), reference_module(x))


def test_gradients_reach_every_parameter_and_the_cache(randomize):
    module = layer(randomize)
    x = torch.randn(2, 5, 16, dtype=torch.float64, requires_grad=True)
    cache = {name: torch.randn_like(tensor, requires_grad=True) for name, tensor in module.init_cache(2).items()}
    output, last = module(x, cache=cache, return_cache=True)
    (output.square().sum() + last["state"].square().sum()).backward()
    for name, parameter in [*module.named_parameters(), ("x", x), *cache.items()]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_wrong_inputs_are_refused(randomize):
    module = layer(randomize)
    with pytest.raises(ValueError, match=r"x: expected \[B, T, D\] with D=16, got \[2, 16\]"):
        module(torch.zeros(2, 16))
    with pytest.raises(ValueError, match=r"x: expected \[B, T, D\] with D=16, got \[2, 5, 8\]"):
        module(torch.zeros(2, 5, 8))
    with pytest.raises(ValueError, match=r"x: expected \[B, D\] with D=16, got \[2, 5, 16\]"):
        module.step(torch.zeros(2, 5, 16), module.init_cache(2))
    with pytest.raises(ValueError, match="cache: expected 2 sequences, one for each of x, got 3"):
        module(torch.zeros(2, 5, 16), cache=module.init_cache(3))
    with pytest.raises(ValueError, match="cache: expected 2 sequences, one for each of x, got 1"):
        module.step(torch.zeros(2, 16), module.init_cache(1))
    with pytest.raises(ValueError, match="cache: expected the entries state, window, got state"):
        module.step(torch.zeros(2, 16), {"state": module.init_cache(2)["state"]})
    for borders in ([0, 3, 2, 5], [0, 3], [1, 5], [0, 9], [-1, 5], [[0, 5]]):
        with pytest.raises(ValueError, match="cu_seqlens"):
            module(torch.zeros(2, 5, 16), cu_seqlens=torch.tensor(borders))


def test_the_heads_are_independent(randomize):
    module = layer(randomize, mhnorm=IdentityConfig(), outprojection=False, additional_passthrough=False, **SCALAR)
    x = torch.randn(1, 5, 16, dtype=torch.float64)
    before = module(x)
    with torch.no_grad():
        module.query.weight[:, :, :, 0] += 1.0  # head 0 reads the first half of the features
    changed = (module(x) - before).abs().amax((0, 1))
    assert changed[:8].min() > 0
    assert np.all(changed[8:].detach().numpy() == 0)
