"""The interface of timm's models on the vision model, without timm."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import nn

import plstm_config
from plstm_config import pLSTMVisionModelConfig
from plstm_torch import build, from_pretrained, save_pretrained

SIZES = {"dim": 16, "num_heads": 2, "num_blocks": 3, "patch_size": 4, "resolution": (8, 12), "output_shape": (5,)}


def make(randomize: Callable[[nn.Module], nn.Module], pooling: str = "corners") -> nn.Module:
    if pooling == "cls":
        config = plstm_config.preset("vit_tiny", **{**SIZES, "pooling": "cls"})
    else:
        config = pLSTMVisionModelConfig(**{**SIZES, "pooling": pooling})
    return randomize(build(config)).eval()


@pytest.mark.parametrize("pooling", ["corners", "mean", "cls", "features"])
def test_features_and_head_are_the_two_halves_of_the_model(randomize, pooling) -> None:
    model = make(randomize, pooling)
    pixels = torch.rand(2, 8, 12, 3)
    features = model.forward_features(pixels)
    assert features.shape == ((2, 7, 16) if pooling == "cls" else (2, 2, 3, 16))
    assert torch.equal(model.forward_head(features), model(pixels))
    before = model.forward_head(features, pre_logits=True)
    if pooling != "features":
        assert before.shape == (2, model.head_hidden_size)
        assert torch.equal(model.head(before), model(pixels))


@pytest.mark.parametrize("pooling", ["corners", "cls"])
def test_intermediates_are_what_the_blocks_return(randomize, pooling) -> None:
    model = make(randomize, pooling)
    pixels = torch.rand(2, 8, 12, 3)
    kept = []
    for block in model.block_stack.blocks:
        block.register_forward_hook(lambda *call: kept.append(call[2]))
    final, layers = model.forward_intermediates(pixels, output_fmt="NHWC")
    for seen, layer in zip(kept, layers, strict=True):
        assert torch.equal(seen[:, 1:].unflatten(1, (2, 3)) if pooling == "cls" else seen, layer)
    assert torch.equal(final, model.forward_features(pixels))
    assert [tuple(layer.shape) for layer in layers] == [(2, 2, 3, 16)] * 3
    nchw = model.forward_intermediates(pixels, intermediates_only=True)
    nlc = model.get_intermediate_layers(pixels, n=3)
    for layer, first, flat in zip(layers, nchw, nlc, strict=True):
        assert torch.equal(first, layer.permute(0, 3, 1, 2))
        assert torch.equal(flat, layer.flatten(1, 2))
    normed = model.forward_intermediates(pixels, [-1], norm=True, output_fmt="NHWC", intermediates_only=True)
    assert torch.equal(normed[0], model.norm(layers[2]))
    reordered = model.forward_intermediates(pixels, (2, 0), intermediates_only=True)
    assert torch.equal(reordered[1], nchw[0])
    early, _ = model.forward_intermediates(pixels, [0], stop_early=True)
    expected = model.norm(layers[0])
    assert torch.equal(early[:, 1:].unflatten(1, (2, 3)) if pooling == "cls" else early, expected)


def test_tokens_come_with_the_intermediates(randomize) -> None:
    model = make(randomize, "cls")
    pixels = torch.rand(2, 8, 12, 3)
    (pair,) = model.get_intermediate_layers(pixels, reshape=True, return_prefix_tokens=True, norm=True)
    assert [tuple(part.shape) for part in pair] == [(2, 16, 2, 3), (2, 1, 16)]
    assert torch.equal(model.head(pair[1][:, 0]), model(pixels))
    assert model.num_prefix_tokens == 1


def test_sizes(randomize) -> None:
    model = make(randomize)
    assert (model.num_features, model.embed_dim, model.head_hidden_size, model.num_classes) == (16, 16, 64, 5)
    assert [info["reduction"] for info in model.feature_info] == [4, 4, 4]
    assert model.get_submodule(model.feature_info[2]["module"]) is model.block_stack.blocks[2]
    assert model.get_classifier() is model.head
    model.set_grad_checkpointing()
    assert model.block_stack.gradient_checkpointing


def test_groups_have_every_parameter_once(randomize) -> None:
    for pooling in ("corners", "cls"):
        model = make(randomize, pooling)
        matcher = model.group_matcher()
        patterns = [matcher["stem"], *(pattern for pattern, _ in matcher["blocks"])]
        for name, _ in model.named_parameters():
            assert sum(re.match(pattern, name) is not None for pattern in patterns) == (not name.startswith("head"))


@pytest.mark.parametrize("classes", [0, 1, 7])
def test_another_head_is_saved_like_the_first(randomize, tmp_path, classes) -> None:
    model = make(randomize)
    pixels = torch.rand(2, 8, 12, 3)
    pooled = model.forward_head(model.forward_features(pixels), pre_logits=True)
    model.reset_classifier(classes)
    assert model.num_classes == classes
    output = model(pixels)
    assert output.shape == (2, classes or 64)
    if classes == 0:
        assert torch.equal(output, pooled)
    save_pretrained(model, tmp_path)
    again = from_pretrained(tmp_path)
    assert torch.equal(again(pixels), output)
    again.double().reset_classifier(2, "mean")
    assert again(pixels).shape == (2, 2)
    assert again(pixels).dtype == again.head.weight.dtype == torch.float64


def test_another_head_computes_in_the_dtype_of_the_model() -> None:
    config = plstm_config.preset("plstm_vis_tiny", img_size=32, dim=32, num_heads=2, num_blocks=1, dtype="bfloat16")
    model = build(config)
    model.reset_classifier(3)
    assert (model.head.dtype, model.head.weight.dtype) == (torch.bfloat16, torch.float32)


def test_a_model_without_the_last_blocks_is_saved_as_such(randomize, tmp_path) -> None:
    model = make(randomize)
    pixels = torch.rand(2, 8, 12, 3)
    expected = model.forward_intermediates(pixels, (0, 1), intermediates_only=True)
    assert model.prune_intermediate_layers((0, -2)) == [0, 1]
    assert len(model.block_stack.blocks) == 2
    save_pretrained(model, tmp_path)
    found = from_pretrained(tmp_path).forward_intermediates(pixels, intermediates_only=True)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_what_is_refused(randomize) -> None:
    model, pixels = make(randomize), torch.rand(1, 8, 12, 3)
    with pytest.raises(ValueError, match="output_fmt: expected one of NCHW, NHWC, NLC, got 'NCL'"):
        model.forward_intermediates(pixels, output_fmt="NCL")
    with pytest.raises(ValueError, match="indices: expected a number of blocks from 1 to 3, got 4"):
        model.forward_intermediates(pixels, 4)
    for indices in ((3,), (-4, 0), ()):
        with pytest.raises(ValueError, match="indices: expected numbers of blocks from -3 to 2"):
            model.forward_intermediates(pixels, indices)
    with pytest.raises(ValueError, match="global_pool: expected one beside 'corners', got 'cls'"):
        model.reset_classifier(3, "cls")
    with pytest.raises(ValueError, match=r"output_shape: expected .*, got \(-1,\)"):
        model.reset_classifier(-1)
