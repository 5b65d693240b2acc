"""The vision model: poolings, resolutions, layouts and bad input."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from plstm_config import (
    BlockStackConfig,
    PostUpProjectionBlockConfig,
    SoftCapFunctionConfig,
    TransformerBlockConfig,
    pLSTM1DLayerConfig,
    pLSTMVisionModelConfig,
    preset,
)
from plstm_testing.tolerances import assert_close
from plstm_torch import build

DTYPES = {"dtype": "float64", "param_dtype": "float64"}
PARAMETER_COUNTS = {"plstm_vis_tiny": 6_314_404, "plstm_vis_small": 23_272_288, "plstm_vis_base": 89_121_496}


def config(**options: object) -> pLSTMVisionModelConfig:
    defaults = {
        "dim": 8,
        "num_heads": 2,
        "num_blocks": 1,
        "patch_size": 4,
        "resolution": (16, 12),
        "output_shape": (5,),
        **DTYPES,
    }
    return pLSTMVisionModelConfig(**{**defaults, **options})


def sequence_stack() -> BlockStackConfig:
    layer = pLSTM1DLayerConfig(input_dim=8, num_heads=2, **DTYPES)
    block = PostUpProjectionBlockConfig(input_dim=8, projection_round=8, interaction_module=layer, **DTYPES)
    return BlockStackConfig(input_dim=8, num_blocks=1, block=block, **DTYPES)


def attention_stack() -> BlockStackConfig:
    block = TransformerBlockConfig(input_dim=8, num_heads=2, projection_round=8, **DTYPES)
    return BlockStackConfig(input_dim=8, num_blocks=1, block=block, **DTYPES)


def images(*sizes: int) -> Tensor:
    return torch.rand(*sizes, 3, dtype=torch.float64)


@pytest.mark.parametrize("name", PARAMETER_COUNTS)
def test_parameter_counts_of_the_presets(name: str) -> None:
    with torch.device("meta"):
        model = build(preset(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETER_COUNTS[name]


POOLED_SHAPES = {
    "corners": (2, 5),
    "center": (2, 5),
    "mean": (2, 5),
    "sum": (2, 5),
    "to_image": (2, 8, 4, 3),
    "features": (2, 4, 3, 8),
}


@pytest.mark.parametrize("pooling", POOLED_SHAPES)
def test_poolings(pooling: str, randomize: Callable[[nn.Module], nn.Module]) -> None:
    model = randomize(build(config(pooling=pooling)))
    output = model(images(2, 16, 12))
    assert output.shape == POOLED_SHAPES[pooling]
    output.square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_poolings_read_the_right_patches(randomize: Callable[[nn.Module], nn.Module]) -> None:
    pixels = images(1, 16, 12)
    torch.manual_seed(1)
    features = build(config(pooling="features"))
    grid = features(pixels)
    expected = {
        "corners": torch.cat([grid[:, 0, 0], grid[:, 3, 0], grid[:, 0, 2], grid[:, 3, 2]], -1),
        "center": grid[:, 2, 1],
        "mean": grid.mean((1, 2)),
        "sum": grid.sum((1, 2)),
    }
    for pooling, pooled in expected.items():
        model = build(config(pooling=pooling))
        model.load_state_dict(features.state_dict(), strict=False)
        randomize(model.head)
        assert_close(model(pixels).detach(), model.head(pooled).detach(), label=pooling)


@pytest.mark.parametrize("stack", [sequence_stack(), attention_stack()], ids=["sequence", "attention"])
def test_cls_pooling_reads_a_learned_token(
    stack: BlockStackConfig, randomize: Callable[[nn.Module], nn.Module]
) -> None:
    model = randomize(build(config(pooling="cls", block_stack=stack)))
    assert model.cls_token.shape == (8,)
    output = model(images(2, 16, 12))
    assert output.shape == (2, 5)
    output.sum().backward()
    assert float(model.cls_token.grad.abs().sum()) > 0


def test_cls_pooling_sees_the_image_through_attention(randomize: Callable[[nn.Module], nn.Module]) -> None:
    model = randomize(build(config(pooling="cls", block_stack=attention_stack())))
    pixels = images(1, 16, 12).requires_grad_()
    model(pixels).sum().backward()
    assert bool((pixels.grad != 0).all())


def test_cls_pooling_needs_sequence_blocks() -> None:
    with pytest.raises(ValueError, match="pooling"):
        build(config(pooling="cls"))


@pytest.mark.parametrize("pooling", ["mean", "features"])
def test_blocks_on_sequences_read_patches_row_by_row(pooling: str) -> None:
    model = build(config(pooling=pooling, block_stack=sequence_stack()))
    pixels = images(1, 16, 12).requires_grad_()
    grid, _ = model.features(pixels)
    grid[0, 1, 1].sum().backward()
    seen = pixels.grad.abs().sum(-1)[0].unfold(0, 4, 4).unfold(1, 4, 4).sum((-1, -2)) > 0
    assert seen.tolist() == [[True, True, True], [True, True, False], [False] * 3, [False] * 3]


@pytest.mark.parametrize("sizes", [(16, 12), (32, 24), (4, 4), (8, 40)])
def test_any_resolution_that_the_patches_tile(sizes: tuple[int, int]) -> None:
    model = build(config())
    assert model(images(2, *sizes)).shape == (2, 5)


def test_empty_batch() -> None:
    assert build(config())(images(0, 16, 12)).shape == (0, 5)


def test_channels_first_is_the_same_model() -> None:
    last, first = build(config()), build(config(channels_first=True))
    first.load_state_dict(last.state_dict())
    pixels = images(2, 16, 12)
    assert_close(first(pixels.permute(0, 3, 1, 2)).detach(), last(pixels).detach())


def test_height_is_the_first_axis() -> None:
    model = build(config(pooling="features"))
    pixels = images(1, 16, 12)
    pixels[:, 4:] = 0
    patches = model.patch_embed(pixels)
    assert bool((patches[:, 1:] == model.patch_embed.proj.bias).all())
    assert not bool((patches[:, 0] == model.patch_embed.proj.bias).any())


def test_soft_cap(randomize: Callable[[nn.Module], nn.Module]) -> None:
    model = randomize(build(config(logit_softcap=SoftCapFunctionConfig(scale=0.1))))
    output = model(images(2, 16, 12))
    assert float(output.detach().abs().max()) <= 0.1


def test_training_in_bfloat16_keeps_float32_parameters() -> None:
    model = build(config(dtype="bfloat16", param_dtype="float32"))
    output = model(torch.rand(2, 16, 12, 3))
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())


@pytest.mark.parametrize(
    ("pixels", "error", "message"),
    [
        (
            torch.zeros(16, 12, 3),
            ValueError,
            r"pixels: expected 4 axes \[B, height, width, C\], got shape \(16, 12, 3\)",
        ),
        (torch.zeros(1, 16, 12, 1), ValueError, "pixels: expected 3 channels .* got 1 channels"),
        (torch.zeros(1, 16, 13, 3), ValueError, "pixels: expected a width that patches of 4 .* got 13"),
        (torch.zeros(1, 0, 12, 3), ValueError, "pixels: expected a height that patches of 4 .* got 0"),
        (torch.zeros(1, 16, 12, 3, dtype=torch.uint8), TypeError, r"pixels: expected floating point .* torch\.uint8"),
    ],
)
def test_bad_images(pixels: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(config())(pixels)


def test_non_contiguous_images() -> None:
    model = build(config())
    pixels = images(2, 12, 16).transpose(1, 2)
    assert_close(model(pixels).detach(), model(pixels.contiguous()).detach())


@pytest.mark.parametrize("wrapped", [False, True])
def test_channels_last(wrapped: bool) -> None:
    model: Any = build(config(channels_first=True))
    pixels = images(2, 16, 12).permute(0, 3, 1, 2).contiguous()
    expected = model(pixels).detach()
    outer = nn.Sequential(model) if wrapped else model
    outer.to(memory_format=torch.channels_last)
    assert model.patch_embed.proj.weight.is_contiguous(memory_format=torch.channels_last)
    assert_close(outer(pixels.to(memory_format=torch.channels_last)).detach(), expected)
    outer(pixels).sum().backward()
