"""Feature pyramids: sizes, depth, gradients; and folders for images of another size."""

import pytest
import torch
from torch import nn

from plstm_config import pLSTM1DLayerConfig, pLSTMVisionModelConfig
from plstm_torch import build, from_pretrained, save_pretrained
from plstm_torch.feature_pyramid import FeaturePyramid


@pytest.fixture
def model(randomize) -> nn.Module:
    config = pLSTMVisionModelConfig(
        dim=8, num_heads=2, num_blocks=3, patch_size=8, resolution=(32, 32), output_shape=(3,)
    )
    return randomize(build(config))


def test_maps_have_their_strides(model) -> None:
    pyramid = FeaturePyramid(model, channels=5)
    maps = pyramid(torch.rand(2, 40, 64, 3))
    assert list(maps) == ["0", "1", "2", "3"]
    assert [tuple(level.shape) for level in maps.values()] == [
        (2, 5, 10, 16), (2, 5, 5, 8), (2, 5, 3, 4), (2, 5, 2, 2)
    ]  # fmt: skip
    assert (pyramid.blocks, pyramid.out_channels) == ((0, 1, 2, 2), 5)
    sum(level.square().sum() for level in maps.values()).backward()
    unused = ("head.", "norm.")
    assert all(p.grad is not None for name, p in model.named_parameters() if not name.startswith(unused))


def test_one_stride_is_the_features_of_the_blocks(model) -> None:
    pyramid = FeaturePyramid(model, strides=(8, 8), blocks=(-3, 1))
    pixels = torch.rand(1, 32, 32, 3)
    expected = model.forward_intermediates(pixels, (0, 1), intermediates_only=True)
    for found, layer in zip(pyramid(pixels).values(), expected, strict=True):
        normed = nn.functional.layer_norm(layer.permute(0, 2, 3, 1), (8,)).permute(0, 3, 1, 2)
        assert torch.equal(found, normed)


def test_what_is_refused(model) -> None:
    with pytest.raises(TypeError, match="model: expected a pLSTMVisionModel, got pLSTM1DLayer"):
        FeaturePyramid(build(pLSTM1DLayerConfig(input_dim=8, num_heads=2)))
    for options, message in (
        ({"strides": ()}, "strides: expected at least one number >= 1"),
        ({"strides": (0,)}, "strides: expected at least one number >= 1"),
        ({"channels": 0}, "channels: expected None or a number >= 1, got 0"),
        ({"blocks": (1,)}, "blocks: expected 4 numbers from -3 to 2"),
        ({"strides": (8,), "blocks": (3,)}, "blocks: expected 1 numbers from -3 to 2"),
    ):
        with pytest.raises(ValueError, match=message):
            FeaturePyramid(model, **options)


@torch.no_grad()
def test_folders_are_read_for_images_of_another_size(model, tmp_path) -> None:
    save_pretrained(model, tmp_path)
    pixels = torch.rand(1, 64, 48, 3)
    expected = model.eval()(pixels)
    larger = from_pretrained(tmp_path, img_size=(64, 48))
    assert larger.config.resolution == (64, 48)
    assert larger.pos_embed.embed.shape == (1, 8, 6, 8)
    assert torch.equal(larger(pixels), expected)
    both = from_pretrained(tmp_path, img_size=64, num_classes=2)
    assert both(torch.rand(1, 64, 64, 3)).shape == (1, 2)
    save_pretrained(both, tmp_path / "both")
    assert from_pretrained(tmp_path / "both").config == both.config
    with pytest.raises(ValueError, match="img_size: expected a size that the patches tile, got 30"):
        from_pretrained(tmp_path, img_size=30)
    layer = build(pLSTM1DLayerConfig(input_dim=8, num_heads=2))
    save_pretrained(layer, tmp_path / "layer")
    with pytest.raises(ValueError, match="img_size: expected None for pLSTM1DLayer"):
        from_pretrained(tmp_path / "layer", img_size=32)
