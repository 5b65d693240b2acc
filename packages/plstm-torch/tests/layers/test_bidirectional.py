"""Layers and language models that read sequences from both ends: against two causal ones, packed, padded, compiled."""

from itertools import pairwise

import pytest
import torch
from torch import nn

import plstm_config
from plstm_config import (
    BlockStackConfig,
    Convolution1DLayerConfig,
    PostUpProjectionBlockConfig,
    pLSTM1DLayerConfig,
    pLSTMLMModelConfig,
)
from plstm_torch import build
from plstm_torch.context import kind_of
from plstm_torch.generation import generate
from plstm_torch.ops import plstm_1d
from plstm_torch.streaming import stream

FLOAT64 = {"dtype": "float64", "param_dtype": "float64"}
MATRIX = {"JQ": 2, "JK": 2, "JV": 2, "JT": 3, "JO": 2}
BORDERS = torch.tensor([0, 0, 4, 5, 12, 12])  # lengths 0, 4, 1, 7, 0
GATES = ("source", "transition", "mark")


def layer(randomize, **options) -> nn.Module:
    return randomize(build(pLSTM1DLayerConfig(**{"input_dim": 16, "num_heads": 2, "bidirectional": True, **options})))


def encoder(randomize, **options) -> nn.Module:
    inner = pLSTM1DLayerConfig(num_heads=2, bidirectional=True)
    stack = BlockStackConfig(block=PostUpProjectionBlockConfig(interaction_module=inner), num_blocks=2)
    config = pLSTMLMModelConfig(vocab_size=11, embedding_dim=16, block_stack=stack)
    return randomize(build(plstm_config.change(config, options) if options else config), 0.3).eval()


@pytest.mark.parametrize("sizes", [{"JV": 1, "JT": 1, "JO": 1}, MATRIX], ids=["scalar", "matrix"])
@pytest.mark.parametrize("implementation", ["recurrent", "chunkwise"])
def test_it_is_the_sum_of_two_causal_recurrences(sizes, implementation, randomize, assert_close) -> None:
    """By hand: each head alone, from the start, and from the end of the reversed sequence."""
    module = layer(randomize, implementation=implementation, **sizes, **FLOAT64)
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    convolved = module.conv(x)
    parts = module._arguments(x, convolved)
    heads = []
    for head in range(2):
        both = []
        for way in (0, 1):
            picked = {n: t[:, :, 2 * head + way if n in GATES else head] for n, t in parts.items()}
            if way:
                picked = {n: t.flip(1) for n, t in picked.items()} | {"direct": 0 * picked["direct"]}
            output = plstm_1d(**picked)
            both.append(output.flip(1) if way else output)
        heads.append(sum(both))
    normed = module.mhnorm(torch.stack(heads, 1).flatten(-2)).movedim(1, 2).flatten(-2)
    expected = module.outprojection(normed) + module.passthrough(module._pick("P", x, convolved))
    assert_close(module(x), expected)


def test_a_palindrome_stays_one_where_both_directions_have_the_same_gates(randomize, assert_close) -> None:
    odd = Convolution1DLayerConfig(kernel_size=3, **FLOAT64)
    module = layer(randomize, convolution=odd, **FLOAT64)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith(GATES):  # biases alone, one for both directions
                parameter.copy_(parameter[::2].repeat_interleave(2, 0) if name.endswith("bias") else 0 * parameter)
        module.conv._conv.weight[..., 2] = module.conv._conv.weight[..., 0]
    x = torch.randn(1, 4, 16, dtype=torch.float64)
    output = module(torch.cat([x, x.flip(1)], 1))
    assert_close(output, output.flip(1))


@pytest.mark.parametrize("options", [{}, {"additional_convolution": False}, MATRIX], ids=["plain", "bare", "matrix"])
def test_packed_sequences_are_read_one_by_one(options, randomize, assert_close) -> None:
    module = layer(randomize, **options, **FLOAT64)
    x = torch.randn(2, 12, 16, dtype=torch.float64, requires_grad=True)
    packed = module(x, cu_seqlens=BORDERS)
    alone = torch.cat([module(x[:, a:b]) for a, b in pairwise(BORDERS.tolist())], 1)
    assert_close(packed, alone)
    weight = torch.randn_like(packed)
    wanted = [x, *module.parameters()]
    for found, right in zip(*(torch.autograd.grad((o * weight).sum(), wanted) for o in (packed, alone)), strict=True):
        assert_close(found, right, kind="gradient")
    spoilt = x.detach().clone()
    spoilt[:, 5:] = torch.nan
    assert_close(module(spoilt, cu_seqlens=BORDERS)[:, :5], packed[:, :5])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lower_precision(dtype, randomize, assert_close) -> None:
    module = layer(randomize, **MATRIX).to(getattr(torch, dtype))
    x = torch.randn(2, 33, 16, dtype=getattr(torch, dtype))
    output = module(x)
    exact = module.double()(x.double())
    assert output.dtype == x.dtype
    assert_close(output, exact, dtype, "module")


@torch.no_grad()
def test_padding_on_either_side_is_never_read(randomize, assert_close) -> None:
    model = encoder(randomize, dtype="float64", param_dtype="float64")
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 1, 1, 1, 1]])
    tokens = torch.randint(0, 11, mask.shape)
    encoded = model.encode(tokens.masked_fill(mask == 0, -7), attention_mask=mask, all_layers=True)
    logits = model(tokens, attention_mask=mask)
    assert len(encoded.layers) == 3
    for row, own in enumerate(mask.bool()):
        if own.any():
            alone = model.encode(tokens[row][own][None])
            assert_close(encoded.hidden[row][own], alone.hidden[0])
            assert_close(logits[row][own], model.logits(alone.hidden)[0])
    assert not logits[mask == 0].any()


def test_every_token_sees_every_token(randomize) -> None:
    model = encoder(randomize)
    embeds = torch.randn(1, 6, 16, requires_grad=True)
    for place in (0, 5):
        (gradient,) = torch.autograd.grad(model(inputs_embeds=embeds)[0, place].sum(), embeds)
        assert (gradient[0].abs().sum(-1) > 0).all()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("borders", [None, BORDERS], ids=["whole", "packed"])
def test_it_compiles_to_one_program(borders, randomize, assert_close) -> None:
    module = layer(randomize, JV=1, JT=1, JO=1)
    x = torch.randn(2, 12, 16)

    def run(x):
        return module(x, cu_seqlens=borders)

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert_close(compiled(x), module(x, cu_seqlens=borders), "float32", "module")


def refusals(module, x):
    yield "step", lambda: module.step(x[:, 0], {})
    yield "init_cache", lambda: module.init_cache(2)
    yield "cache", lambda: module(x, cache={})
    yield "return_cache", lambda: module(x, return_cache=True)


def test_what_needs_a_start_is_refused_in_one_voice(randomize) -> None:
    model, x = encoder(randomize), torch.randn(2, 5, 16)
    tokens = torch.randint(0, 11, (2, 5))
    block = model.block_stack.blocks[0]
    asked = [
        (module, name, call)
        for module, given in ((block.interaction_module, x), (block, x), (model.block_stack, x), (model, tokens))
        for name, call in refusals(module, given)
    ]
    asked += [
        (model, "generate", lambda: model.generate(tokens, 3)),
        (model, "generate", lambda: generate(model, [tokens[0]], 3)),
        (model, "generate", lambda: model.generate(tokens, 0)),
        (model, "stream", lambda: next(model.stream(tokens, 3))),
        (model, "stream", lambda: list(stream(model, tokens, 0))),
    ]
    for module, name, call in asked:
        assert kind_of(module) == "bidirectional"
        owner = type(module).__name__
        with pytest.raises(
            ValueError, match=rf"^{name}: expected a causal module, got {owner} with bidirectional=True"
        ):
            call()


def test_a_centred_convolution_has_no_window() -> None:
    conv = build(Convolution1DLayerConfig(input_dim=4, causal=False))
    x, window = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)
    for name, call in (
        ("init_window", lambda: conv.init_window(2)),
        ("extend", lambda: conv.extend(x, window)),
        ("step", lambda: conv.step(x[:, 0], window)),
    ):
        with pytest.raises(ValueError, match=f"^{name}: expected a causal convolution, got Convolution1DLayer with"):
            call()
