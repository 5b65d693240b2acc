"""The positional embedding follows the grid, in use and when weights are loaded."""

import pytest
import torch
from torch.nn import functional

from plstm_config import PosEmbed2DConfig
from plstm_testing.tolerances import assert_close
from plstm_torch import build
from plstm_torch.models.pos_embed import resize_pos_embed


def config(**options: object) -> PosEmbed2DConfig:
    return PosEmbed2DConfig(**{"seqlens": (4, 3), "dim": 5, "dtype": "float64", "param_dtype": "float64", **options})


def test_adds_the_embedding() -> None:
    module = build(config())
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    assert torch.equal(module(x), x + module.embed)


def test_another_grid_is_interpolated_bicubically() -> None:
    module = build(config())
    x = torch.zeros(1, 7, 6, 5, dtype=torch.float64)
    image = module.embed.permute(0, 3, 1, 2)
    expected = functional.interpolate(image, size=(7, 6), mode="bicubic", antialias=False).permute(0, 2, 3, 1)
    assert_close(module(x).detach(), expected.detach())


def test_interpolation_keeps_constants_and_narrow_dtypes() -> None:
    embed = torch.full((1, 4, 3, 2), 0.5, dtype=torch.bfloat16)
    resized = resize_pos_embed(embed, (9, 2))
    assert resized.dtype == torch.bfloat16
    assert_close(resized.float(), torch.full((1, 9, 2, 2), 0.5), "bfloat16")


def test_weights_of_another_grid_are_interpolated() -> None:
    small, large = build(config()), build(config(seqlens=(8, 6)))
    large.load_state_dict(small.state_dict())
    assert_close(large.embed.detach(), resize_pos_embed(small.embed, (8, 6)).detach())


def test_interpolation_can_be_forbidden() -> None:
    module = build(config(allow_interpolation=False))
    with pytest.raises(ValueError, match=r"x: expected the grid \(4, 3\) \(allow_interp.* is False\), got \(5, 3\)"):
        module(torch.zeros(1, 5, 3, 5))
    with pytest.raises(RuntimeError, match="size mismatch for embed"):
        module.load_state_dict(build(config(seqlens=(8, 6))).state_dict())


def test_a_fixed_embedding_takes_no_gradient() -> None:
    module = build(config(learnable=False))
    assert not module.embed.requires_grad
    assert "embed" in module.state_dict()


def test_an_open_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="seqlens, dim: expected a grid and a width, got None and 5"):
        build(config(seqlens=None))
