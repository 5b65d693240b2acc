"""The patch embedding against its formula, and configs that leave something open."""

import pytest
import torch

from plstm_config import PatchEmbedConfig
from plstm_testing.tolerances import assert_close
from plstm_torch import build

CONFIG = {"dim": 5, "num_channels": 2, "patch_size": (4, 3), "dtype": "float64", "param_dtype": "float64"}


def test_side_by_side_patches_follow_the_formula() -> None:
    module = build(PatchEmbedConfig(**CONFIG))
    pixels = torch.randn(2, 8, 9, 2, dtype=torch.float64)
    patches = pixels.unflatten(1, (2, 4)).unflatten(3, (3, 3))
    expected = torch.einsum("bxiyjc,dcij->bxyd", patches, module.proj.weight) + module.proj.bias
    assert_close(module(pixels).detach(), expected.detach())


def test_overlapping_patches() -> None:
    module = build(PatchEmbedConfig(**{**CONFIG, "stride": (2, 3)}))
    pixels = torch.randn(1, 8, 9, 2, dtype=torch.float64)
    assert module(pixels).shape == (1, 3, 3, 5)
    assert_close(module(pixels)[:, 1:2].detach(), module(pixels[:, 2:6]).detach())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": -1}, "dim: expected an integer >= 1, got -1"),
        ({"num_channels": 0}, "num_channels: expected an integer >= 1, got 0"),
        ({"patch_size": -1}, r"patch_size, stride: expected sizes >= 1, got \(-1, -1\)"),
    ],
)
def test_open_configs_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(PatchEmbedConfig(**{**CONFIG, **options}))
