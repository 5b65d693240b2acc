import math

import numpy as np
import pytest
import torch

from plstm_config import (
    ConstantInitConfig,
    DiagonalInitConfig,
    LinspaceInitConfig,
    LogspaceInitConfig,
    NormalInitConfig,
    OnesInitConfig,
    RMSNormConfig,
    SmallInitConfig,
    TruncatedNormalInitConfig,
    WangInitConfig,
    XavierInitConfig,
    ZerosInitConfig,
)
from plstm_testing.tolerances import assert_close
from plstm_torch.initializers import initialize_

RANDOM = [
    NormalInitConfig(mean=1.0, stddev=0.5),
    TruncatedNormalInitConfig(mean=1.0, stddev=0.5),
    WangInitConfig(),
    XavierInitConfig(),
    SmallInitConfig(),
]
ALL = [
    *RANDOM,
    ConstantInitConfig(value=2.5),
    ZerosInitConfig(),
    OnesInitConfig(),
    LinspaceInitConfig(),
    LogspaceInitConfig(),
    DiagonalInitConfig(in_axes=-2, out_axes=-1),
]


def filled(shape, config, dtype=torch.float64):
    tensor = torch.full(shape, math.nan, dtype=dtype)
    assert initialize_(tensor, config) is tensor
    return tensor


def name(config):
    return type(config).__name__


@pytest.mark.parametrize(
    ("config", "value"),
    [(ConstantInitConfig(value=2.5), 2.5), (ZerosInitConfig(), 0.0), (OnesInitConfig(), 1.0)],
    ids=["constant", "zeros", "ones"],
)
def test_constants(config, value):
    assert (filled((2, 3), config) == value).all()


@pytest.mark.parametrize("axis", [0, 1, -1, -3])
def test_spaces_run_along_their_axis(axis):
    shape = (2, 5, 3)
    size = shape[axis]
    moved = filled(shape, LinspaceInitConfig(low=-2.0, high=2.0, axis=axis)).movedim(axis, -1)
    assert_close(moved.numpy(), np.broadcast_to(np.linspace(-2, 2, size), moved.shape))
    moved = filled(shape, LogspaceInitConfig(low=-1.0, high=2.0, base=3.0, axis=axis)).movedim(axis, -1)
    assert_close(moved.numpy(), np.broadcast_to(3.0 ** np.linspace(-1, 2, size), moved.shape))


def diagonal(rows, columns, value):
    size = min(rows, columns)
    tiles = np.tile(np.eye(size), (math.ceil(rows / size), math.ceil(columns / size)))
    return value * tiles[:rows, :columns]


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (2, 6), (6, 2), (3, 5), (1, 4)])
def test_diagonal_tiles_the_smaller_identity(rows, columns):
    matrix = filled((rows, columns), DiagonalInitConfig(value=3.0, in_axes=-2, out_axes=-1))
    assert_close(matrix.numpy(), diagonal(rows, columns, 3.0))
    matrix = filled((rows, columns), DiagonalInitConfig(value=3.0, in_axes=1, out_axes=0))
    assert_close(matrix.numpy(), diagonal(columns, rows, 3.0).T)


def test_diagonal_repeats_over_the_other_axes():
    tensor = filled((4, 3, 2, 3), DiagonalInitConfig(value=1.0, in_axes=1, out_axes=-1))
    for head in range(4):
        for other in range(2):
            assert_close(tensor[head, :, other].numpy(), np.eye(3))


def test_diagonal_joins_several_axes():
    tensor = filled((2, 5, 3, 6), DiagonalInitConfig(value=1.0, in_axes=(0, 2), out_axes=(3,)))
    for other in range(5):
        assert_close(tensor[:, other].reshape(6, 6).numpy(), np.eye(6))


SAMPLES = 200_000


@pytest.mark.parametrize(
    ("config", "shape", "stddev"),
    [
        (NormalInitConfig(mean=0.0, stddev=0.3), (400, 500), 0.3),
        (SmallInitConfig(mup_init_scale=2.0), (400, 500), 2.0 / math.sqrt(2.5 * 500)),
        (SmallInitConfig(axis=0), (400, 500), 1.0 / math.sqrt(2.5 * 400)),
        (SmallInitConfig(axis=-2), (4, 500, 100), 1.0 / math.sqrt(2.5 * 500)),
        (WangInitConfig(num_blocks=4), (400, 500), 2.0 / math.sqrt(500) / 4),
        (WangInitConfig(num_blocks=2, mup_init_scale=0.5, axis=0), (400, 500), 1.0 / math.sqrt(400) / 2),
        (XavierInitConfig(), (400, 500), math.sqrt(2 / 900)),
        (XavierInitConfig(in_axis=0, out_axis=1, mup_init_scale=3.0), (4, 500, 100), 3.0 * math.sqrt(2 / 504)),
    ],
    ids=lambda value: name(value) if hasattr(value, "__dataclass_fields__") else str(value),
)
def test_standard_deviations(config, shape, stddev):
    torch.manual_seed(0)
    sample = filled(shape, config)
    assert sample.numel() == SAMPLES
    five_sigma = 5 / math.sqrt(SAMPLES)
    assert abs(sample.std().item() / stddev - 1) < five_sigma
    assert abs(sample.mean().item() / stddev) < five_sigma
    kurtosis = (sample / stddev).pow(4).mean().item()
    assert abs(kurtosis - 3) < five_sigma * math.sqrt(96)


@pytest.mark.parametrize(("lower", "upper"), [(-1.0, 2.0), (-2.0, 0.5), (1.0, 3.0), (-50.0, 50.0)])
def test_truncated_normal_is_the_conditional_distribution(lower, upper):
    torch.manual_seed(0)
    mean, stddev = 1.0, 0.5
    config = TruncatedNormalInitConfig(
        mean=mean, stddev=stddev, lower=mean + lower * stddev, upper=mean + upper * stddev
    )
    z = ((filled((400, 500), config) - mean) / stddev).flatten().sort().values
    assert z.min() >= lower
    assert z.max() <= upper

    def distribution(t):
        return 0.5 * (1 + torch.erf(t / math.sqrt(2)))

    low, high = distribution(torch.tensor([lower, upper], dtype=torch.float64))
    expected = (distribution(z) - low) / (high - low)
    steps = torch.arange(1, SAMPLES + 1, dtype=torch.float64) / SAMPLES
    assert (expected - steps).abs().max() < 2.0 / math.sqrt(SAMPLES)  # Kolmogorov-Smirnov; exceeded once in 1,500


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_truncated_normal_reaches_far_tails(sign):
    torch.manual_seed(0)
    lower, upper = sorted((sign * 20.0, sign * 40.0))
    sample = filled((1000,), TruncatedNormalInitConfig(mean=0.0, stddev=2.0, lower=lower, upper=upper))
    assert sample.min() >= lower
    assert sample.max() <= upper
    assert sample.unique().numel() > 900
    # So far out the distance to the bound is nearly exponential, with mean stddev**2 / bound.
    assert 0.17 < (sample.abs() - 20.0).mean() < 0.23


def test_truncated_normal_without_spread_is_its_mean():
    assert (filled((3,), TruncatedNormalInitConfig(mean=1.5, stddev=0.0)) == 1.5).all()
    assert (filled((3,), TruncatedNormalInitConfig(mean=5.0, stddev=0.0)) == 2.0).all()


@pytest.mark.parametrize("config", ALL, ids=name)
def test_a_seed_decides_the_values_in_every_narrow_dtype(config):
    def draw(dtype):
        torch.manual_seed(7)
        return filled((4, 6), config, dtype)

    assert torch.equal(draw(torch.float32), draw(torch.float32))
    assert torch.equal(draw(torch.float32).to(torch.bfloat16), draw(torch.bfloat16))
    assert torch.equal(draw(torch.float32).to(torch.float16), draw(torch.float16))


@pytest.mark.parametrize("config", ALL, ids=name)
def test_views_and_parameters_are_filled_in_place(config):
    parameter = torch.nn.Parameter(torch.full((6, 4), math.nan))
    initialize_(parameter.transpose(0, 1), config)
    assert parameter.isfinite().all()
    assert parameter.grad_fn is None
    assert initialize_(torch.empty(4, 6, device="meta"), config).device.type == "meta"
    assert initialize_(torch.empty(0, 6), config).shape == (0, 6)


def test_unknown_configs_list_the_known_ones():
    with pytest.raises(TypeError, match=r"config: expected an instance of one of ConstantInitConfig, .*, got RMSNorm"):
        initialize_(torch.empty(2), RMSNormConfig(input_dim=2))


@pytest.mark.parametrize(
    "config",
    [LinspaceInitConfig(axis=2), SmallInitConfig(axis=-3), DiagonalInitConfig(in_axes=(0, 5), out_axes=1)],
    ids=name,
)
def test_missing_axes_are_refused(config):
    with pytest.raises(ValueError, match=r"axis: expected one in \[-2, 2\) of an array of rank 2, got"):
        initialize_(torch.empty(2, 3), config)


def test_overlapping_diagonal_axes_are_refused():
    with pytest.raises(ValueError, match="out_axes: expected others than in_axes=-1, got 1"):
        initialize_(torch.empty(2, 3), DiagonalInitConfig(in_axes=-1, out_axes=1))
